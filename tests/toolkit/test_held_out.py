"""Questions held out of a stage: which they are, how exact the loss on them is, and what is done with it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.records import duals, edit, saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit import stages
from toolkit.encoding import encode
from toolkit.errors import UserError
from toolkit.held_out import hold_out, is_held_out
from toolkit.recipe import Stage
from toolkit.stages import make_trainer, train_stage

ROWS = duals(14)
VIEWS = ("right", "wrong")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


def validated(share: float = 0.5, by: str = "example", over: str = "all", **training: Any) -> Stage:
    """Return EDIT's second stage with questions held out."""
    stage = edit(beta=0.3, reduction={"by": by, "over": over}, eval_strategy="steps", eval_steps=1, **training)
    return stage.model_copy(update={"validation": share})


# --- which questions


@given(st.lists(st.text(max_size=8), min_size=2, unique=True), st.integers(0, 99), st.randoms(use_true_random=False))
def test_which_questions_are_held_out_depends_on_no_order(
    questions: list[str], seed: int, chance: random.Random
) -> None:
    rows = [{"id": i, "question": question} for i, question in enumerate(questions * 2)]
    assume(len({is_held_out(question, 0.5, seed) for question in questions}) == 2)  # one side alone is refused
    shuffled = chance.sample(rows, len(rows))
    sides, others = ([sorted(row["id"] for row in side) for side in hold_out(of, 0.5, seed)] for of in (rows, shuffled))
    assert sides == others


@given(st.lists(st.sampled_from("abcdefgh"), min_size=8), st.integers(0, 99))
def test_both_halves_of_a_pair_are_on_one_side_though_their_questions_differ(pairs: list[str], seed: int) -> None:
    assume(len({is_held_out(pair, 0.5, seed) for pair in pairs}) == 2)
    rows = [{"id": i, "question": f"{pair}{i}", "pair_id": pair} for i, pair in enumerate(pairs)]
    trained, held = hold_out(rows, 0.5, seed)
    assert not {row["pair_id"] for row in trained} & {row["pair_id"] for row in held}


@given(st.lists(st.sampled_from("abcdefgh"), min_size=8), st.integers(0, 99))
def test_all_records_of_a_question_are_on_one_side(questions: list[str], seed: int) -> None:
    assume(len({is_held_out(question, 0.5, seed) for question in questions}) == 2)
    rows = [{"id": i, "question": question} for i, question in enumerate(questions)]
    trained, held = hold_out(rows, 0.5, seed)
    assert not {row["question"] for row in trained} & {row["question"] for row in held}
    assert sorted(row["id"] for row in [*trained, *held]) == list(range(len(rows)))


def drawn(name: str, seed: int) -> float:
    """Return the number between 0 and 1 that decides on a question, by the published rule: written out once more."""
    return int(hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()[:16], 16) / 2**64


@pytest.mark.parametrize(("share", "seed"), [(0.2, 42), (0.2, 7), (0.7, 42)])
def test_first_comes_what_is_trained_on_and_then_what_is_held_out(share: float, seed: int) -> None:
    rows = [{"id": i, "question": f"What is {i // 2}?"} for i in range(200)]
    trained, held = hold_out(rows, share, seed)
    assert [row["id"] for row in trained] == [row["id"] for row in rows if drawn(row["question"], seed) >= share]
    assert [row["id"] for row in held] == [row["id"] for row in rows if drawn(row["question"], seed) < share]


def test_which_of_a_few_questions_are_held_out() -> None:
    # `printf '0\0d' | sha256sum` begins with 4aef, 0.293 of all there is; that of f with 3609, 0.211; no other so low.
    assert [name for name in "abcdefgh" if is_held_out(name, 0.3, 0)] == ["d", "f"]


def test_a_pair_is_held_out_by_its_own_name_and_not_by_its_questions() -> None:
    rows = [{"id": i, "question": f"q{i}", "pair_id": f"pair {i // 2}"} for i in range(80)]
    trained, held = hold_out(rows, 0.3, 1)
    assert {row["pair_id"] for row in held} == {f"pair {i}" for i in range(40) if drawn(f"pair {i}", 1) < 0.3}
    assert len(trained) + len(held) == 80


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_as_many_are_held_out_as_the_share_says(share: float) -> None:
    held = sum(is_held_out(f"question {i}", share, 42) for i in range(20_000))
    assert held / 20_000 == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)


def test_a_larger_share_holds_out_more_and_none_less() -> None:
    small, large = ({i for i in range(500) if is_held_out(str(i), share, 0)} for share in (0.1, 0.2))
    assert small < large


def test_another_seed_holds_out_other_questions() -> None:
    first, second = ([is_held_out(str(i), 0.5, seed) for i in range(64)] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(("share", "found"), [(1e-9, "none of 3"), (1 - 1e-9, "all of 3")])
def test_a_side_without_any_question_is_refused(share: float, found: str) -> None:
    with pytest.raises(UserError, match=f"{found} questions would be held out"):
        hold_out(duals(3), share, 0)


def test_records_without_questions_are_refused(student: str, tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "question"} for row in ROWS]
    with pytest.raises(UserError, match=r"stages.key_steps.validation: found records without a column 'question'"):
        make_trainer(validated(), rows, student, tmp_path, {}, "plain")


# --- the loss on them


def by_hand(student: str, rows: Any, stage: Stage) -> dict[str, float]:
    """Return each view's share of the loss over records, one sequence at a time and without the trainer."""
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    columns, _ = encode(tiny_tokenizer(), rows, stage, None)
    sums, counts = dict.fromkeys(VIEWS, 0.0), dict.fromkeys(VIEWS, 0.0)
    for ids, weights, counted, views in zip(*columns.values(), strict=True):
        name = VIEWS[views[0]]
        with torch.no_grad():
            log_probabilities = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for t in range(1, len(ids)):
            sums[name] -= weights[t] * log_probabilities[t - 1, ids[t]].item()
            counts[name] += counted[t]
    if stage.reduction.by == "token":
        counts = dict.fromkeys(VIEWS, sum(counts.values()))
    return {name: sums[name] / counts[name] for name in VIEWS}


@pytest.mark.parametrize("by", ["token", "view", "example"])
@pytest.mark.parametrize("over", ["all", "weighted"])
def test_the_loss_is_that_of_all_held_out_records_at_once(student: str, tmp_path: Path, by: str, over: str) -> None:
    stage = validated(by=by, over=over, per_device_eval_batch_size=3)
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path, {}, "plain")
    metrics = trainer.evaluate()
    _, held = hold_out(ROWS, 0.5, 42)
    expected = by_hand(student, held, stage)
    assert metrics["eval_loss"] == pytest.approx(sum(expected.values()), rel=1e-5)
    assert {name: metrics[f"eval_loss/{name}"] for name in VIEWS} == pytest.approx(expected, rel=1e-5)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one at a time": {"per_device_eval_batch_size": 1},
    "unequal batches": {"per_device_eval_batch_size": 5},
    "all at once": {"per_device_eval_batch_size": 64},
    "gathered at once": {"per_device_eval_batch_size": 2, "eval_accumulation_steps": 2},
    "trained on packed": {"per_device_eval_batch_size": 5, "packing": True, "max_length": 160},
    "trained on padding-free": {"per_device_eval_batch_size": 5, "padding_free": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_depends_on_no_layout(student: str, tmp_path: Path, layout: str) -> None:
    stage = validated(**LAYOUTS[layout])
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path, {}, "plain")
    _, held = hold_out(ROWS, 0.5, 42)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(by_hand(student, held, stage).values()), rel=1e-5)


def test_training_sees_none_of_the_held_out_records(student: str, tmp_path: Path) -> None:
    trainer, report = make_trainer(validated(), ROWS, student, tmp_path, {}, "plain")
    trained, held = hold_out(ROWS, 0.5, 42)
    alone, _ = make_trainer(edit(beta=0.3), trained, student, tmp_path, {}, "plain")
    assert trainer.train_dataset.to_list() == alone.train_dataset.to_list()
    assert report.held_out is not None
    assert (report.records, report.held_out.records) == (len(trained), len(held))


def test_held_out_records_that_do_not_fit_are_counted_apart(student: str, tmp_path: Path) -> None:
    _, held = hold_out(ROWS, 0.5, 42)
    rows = [{**row, "right": row["right"] | {"answer": "9" * 400}} if row is held[0] else row for row in ROWS]
    _, report = make_trainer(validated(max_length=300), rows, student, tmp_path, {}, "plain")
    assert report.held_out is not None
    assert (len(report.dropped), list(report.held_out.dropped)) == (0, [held[0]["id"]])


# --- what is done with it


@pytest.mark.parametrize(("greater", "kept"), [(True, 1), (False, 3)])
def test_the_best_step_is_kept(student: str, tmp_path: Path, greater: bool, kept: int) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    stage = validated(
        max_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="loss/right",
        greater_is_better=greater,
        **saving,
    )
    facts = train_stage(stage, ROWS, student, tmp_path, {}, "plain")
    losses = [entry["eval_loss/right"] for entry in facts["log"] if "eval_loss" in entry]
    assert losses == sorted(losses, reverse=True)
    assert facts["kept_step"] == kept
    _, held = hold_out(ROWS, 0.5, 42)
    of_the_result = by_hand(str(tmp_path / "student"), held, stage)["right"]
    assert of_the_result == pytest.approx(losses[kept - 1], rel=1e-5)


def test_an_interrupted_run_keeps_the_weights_that_an_uninterrupted_one_keeps(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {"eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1, "eval_on_start": True}
    stage = edit(beta=0.3, max_steps=6, eval_strategy="steps", load_best_model_at_end=True, **every)
    # The first step's loss is the largest: what is kept is neither the last checkpoint nor the one resumed from.
    stage.training["greater_is_better"] = True
    stage = stage.model_copy(update={"validation": 0.5})
    whole = train_stage(stage, ROWS, student, tmp_path / "whole", {}, "plain")

    class Interrupted(stages.MarkComplete):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 6:
                raise KeyboardInterrupt
            super().on_save(args, state, control, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(stages, "MarkComplete", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_stage(stage, ROWS, student, tmp_path / "resumed", {}, "plain")
    resumed = train_stage(stage, ROWS, student, tmp_path / "resumed", {}, "plain")
    assert (resumed["resumed_from_step"], resumed["kept_step"], whole["kept_step"]) == (4, 2, 2)
    weights = [(tmp_path / run / "student" / "model.safetensors").read_bytes() for run in ("whole", "resumed")]
    assert weights[0] == weights[1]


def test_a_metric_is_a_loss_whatever_its_name_ends_with(student: str, tmp_path: Path) -> None:
    stage = validated(load_best_model_at_end=True, metric_for_best_model="loss/right", save_strategy="best")
    trainer, _ = make_trainer(stage, ROWS, student, tmp_path, {}, "plain")
    assert trainer.args.greater_is_better is False
