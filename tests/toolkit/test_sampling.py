"""One record of each question in every epoch: which ones, in which order, after an interruption, on two processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from transformers import TrainerCallback

from tests.chains import COT, LABEL, chains, stage
from tests.records import saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit.encoding import encode
from toolkit.sampling import BalancedSampler, EpochSampler, balanced_seeds
from toolkit.stages import last_complete_checkpoint, make_trainer

BALANCED = {"draw": "balanced", "seed": 5}
ROWS = chains(6, each=3)


def sampler(views: dict[str, dict[str, Any]], seed: int = 0, rows: list[dict[str, Any]] = ROWS) -> BalancedSampler:
    """Return the sampler of a stage, with the columns it was made from beside it."""
    of_stage = stage(views)
    columns, _ = encode(tiny_tokenizer(), rows, of_stage, None)
    views_of = [view[0] for view in columns["views"]]
    made = BalancedSampler(columns["question"], columns["record"], views_of, balanced_seeds(of_stage), seed)
    made.about = list(zip(columns["question"], columns["record"], views_of, strict=True))  # type: ignore[attr-defined]
    return made


def epoch(of: Any, number: int) -> list[tuple[str, str, int]]:
    """Return (question, record, view) of an epoch's sequences, in order."""
    of.set_epoch(number)
    return [of.about[position] for position in of]


# --- what an epoch holds


def test_an_epoch_has_one_record_of_each_question_and_all_sequences_of_other_views() -> None:
    of = sampler({"cot": {**COT, "select": BALANCED}, "label": LABEL})
    for number in range(4):
        seen = epoch(of, number)
        assert sorted(question for question, _, view in seen if view == 0) == sorted({row["question"] for row in ROWS})
        assert sorted(record for _, record, view in seen if view == 1) == sorted(row["id"] for row in ROWS)
        assert len(seen) == len(of) == 6 + 18


def test_only_records_that_the_view_selects_are_drawn() -> None:
    of = sampler({"cot": {**COT, "select": {**BALANCED, "where": "correct"}}})
    wrong = {row["id"] for row in ROWS if not row["correct"]}
    assert not wrong & {record for number in range(20) for _, record, _ in epoch(of, number)}


def test_every_record_has_its_turn_and_no_epoch_is_all_like_the_one_before() -> None:
    of = sampler({"cot": {**COT, "select": BALANCED}})
    drawn = [{record for _, record, _ in epoch(of, number)} for number in range(30)]
    assert set().union(*drawn) == {row["id"] for row in ROWS}
    assert all(one != other for one, other in pairwise(drawn))


def test_a_draw_is_fair_over_many_epochs() -> None:
    of = sampler({"cot": {**COT, "select": BALANCED}})
    counts = Counter(record for number in range(600) for _, record, _ in epoch(of, number))
    # 18 counts of a binomial with mean 200 and standard deviation 11.5
    assert all(abs(count - 200) < 5 * 11.5 for count in counts.values())


def test_views_with_the_same_seed_show_the_same_record() -> None:
    of = sampler({"cot": {**COT, "select": BALANCED}, "label": {**LABEL, "select": BALANCED}})
    for number in range(5):
        seen = epoch(of, number)
        first, second = ({record for _, record, view in seen if view == which} for which in (0, 1))
        assert first == second


def test_views_with_other_seeds_draw_for_themselves() -> None:
    of = sampler({"cot": {**COT, "select": BALANCED}, "label": {**LABEL, "select": {**BALANCED, "seed": 6}}})
    seen = [epoch(of, number) for number in range(10)]
    pairs = [({r for _, r, v in one if v == 0}, {r for _, r, v in one if v == 1}) for one in seen]
    assert any(first != second for first, second in pairs)


def test_the_position_of_the_view_with_a_balanced_draw_is_known_by_its_seed() -> None:
    views = {"label": LABEL, "cot": {**COT, "select": BALANCED}}
    assert balanced_seeds(stage(views)) == {1: 5}


def test_a_share_is_how_often_an_epoch_has_a_sequence_on_average() -> None:
    rows = [row for row in ROWS if row["id"] not in ("sum/0#1", "sum/0#2", "sum/1#1")]
    of = sampler({"cot": {**COT, "select": BALANCED}, "label": LABEL}, rows=rows)
    shares = {of.about[position]: share for position, share in of.shares.items()}  # type: ignore[attr-defined]
    question = {row["id"]: row["question"] for row in rows}
    of_a_question = {"sum/0": 1.0, "sum/1": 1 / 2} | {f"sum/{i}": 1 / 3 for i in range(2, 6)}
    drawn = {(question[row["id"]], row["id"], 0): of_a_question[row["id"].partition("#")[0]] for row in rows}
    assert shares == drawn | {(question[row["id"]], row["id"], 1): 1.0 for row in rows}
    assert sum(shares.values()) == pytest.approx(len(of))


# --- of what it is a function


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    views = {"cot": {**COT, "select": BALANCED}, "label": LABEL}
    one, again = sampler(views), sampler(views)
    epoch(one, 7)  # what was drawn before has no influence
    assert epoch(one, 2) == epoch(again, 2) == epoch(one, 2)
    assert epoch(one, 2) != epoch(one, 3)
    assert epoch(sampler(views, seed=1), 2) != epoch(one, 2)


def test_the_seed_of_the_order_does_not_change_what_is_drawn() -> None:
    views = {"cot": {**COT, "select": BALANCED}}
    one, other = (epoch(sampler(views, seed=seed), 3) for seed in (0, 1))
    assert one != other
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize("number", [0, 3])
def test_the_order_is_drawn_from_seed_and_epoch_and_blanks_come_last(number: int) -> None:
    of = EpochSampler(RandomSampler(range(5)), 7, range(5, 7))
    if number:
        of.set_epoch(number)
    drawn = torch.randperm(5, generator=torch.Generator().manual_seed(7 + number)).tolist()
    assert list(of) == list(of) == [*drawn, 5, 6]
    assert len(of) == 7
    assert list(EpochSampler(SequentialSampler(range(3)), 7, range(0))) == [0, 1, 2]


def test_a_balanced_order_is_told_the_epoch() -> None:
    alone, within = (sampler({"cot": {**COT, "select": BALANCED}, "label": LABEL}) for _ in range(2))
    of = EpochSampler(within, 0, range(24, 26))
    of.set_epoch(2)
    alone.set_epoch(2)
    assert list(of) == [*alone, 24, 25]


def test_positions_are_permuted_by_a_digest_of_seed_and_epoch() -> None:
    of = BalancedSampler(["q"] * 6, [*"abcdef"], [0] * 6, {}, 3)
    of.set_epoch(4)
    seed = int.from_bytes(hashlib.sha256(b"(3, 4)").digest()[:7], "big")
    assert list(of) == torch.randperm(6, generator=torch.Generator().manual_seed(seed)).tolist()


@given(st.permutations(range(18)), st.integers(0, 50))
def test_what_is_drawn_does_not_depend_on_the_order_of_the_records(places: list[int], number: int) -> None:
    questions, records = [row["question"] for row in ROWS], [row["id"] for row in ROWS]
    drawn = []
    for positions in (list(range(18)), places):
        of = BalancedSampler([questions[i] for i in positions], [records[i] for i in positions], [0] * 18, {0: 5}, 0)
        of.set_epoch(number)
        drawn.append({records[positions[place]] for place in of})
    assert drawn[0] == drawn[1]


# --- several processes


@pytest.mark.parametrize("number", [0, 1, 5])
def test_two_processes_share_an_epoch_between_them(number: int) -> None:
    alone = sampler({"cot": {**COT, "select": BALANCED}, "label": LABEL})
    alone.set_epoch(number)
    shards = []
    for process in range(2):
        own = sampler({"cot": {**COT, "select": BALANCED}, "label": LABEL})
        loader = DataLoader(list(range(24)), batch_size=3, sampler=own)  # type: ignore[arg-type]
        prepared = prepare_data_loader(loader, num_processes=2, process_index=process, put_on_device=False)
        prepared.set_epoch(number)
        shards.append([position for batch in prepared.batch_sampler for position in batch])
    assert [len(shard) for shard in shards] == [12, 12]
    assert not set(shards[0]) & set(shards[1])
    assert set(shards[0]) | set(shards[1]) == set(alone)


# --- in a run


class Seen(TrainerCallback):
    """Keeps the sequences of every batch, and ends the run in the middle where it is told to."""

    def __init__(self, trainer: Any, stop_after: int | None = None) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        self.stop_after = stop_after
        collate = trainer.data_collator

        def keeping(examples: list[dict[str, Any]]) -> Any:
            self.batches.append([tuple(example["input_ids"]) for example in examples])
            return collate(examples)

        trainer.data_collator = keeping
        trainer.add_callback(self)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.stop_after:
            control.should_training_stop = True


RUN: dict[str, Any] = {
    "max_steps": -1,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "save_strategy": "steps",
    "save_steps": 4,
    "seed": 3,
}
VIEWS = {"cot": {**COT, "select": BALANCED}}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


def test_a_run_that_is_interrupted_in_the_second_epoch_ends_with_the_same_weights(student: str, tmp_path: Path) -> None:
    def prepared(folder: str) -> Any:
        return make_trainer(stage(VIEWS, **RUN), ROWS, student, tmp_path / folder, {}, "plain")[0]

    whole = prepared("whole")
    seen = Seen(whole)
    whole.train()
    assert whole.state.global_step == 9  # three epochs of six sequences, two in a batch
    epochs = [{ids for batch in seen.batches[start : start + 3] for ids in batch} for start in (0, 3, 6)]
    assert epochs[0] != epochs[1] != epochs[2]

    cut = prepared("cut")
    Seen(cut, stop_after=5)
    cut.train()
    checkpoint = last_complete_checkpoint(tmp_path / "cut")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"  # the second of three steps of its epoch is the next
    resumed = prepared("cut")
    rest = Seen(resumed)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert rest.batches == seen.batches[4:]
    for name, parameter in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], parameter), name


def test_flattened_chains_weigh_a_question_by_their_number_and_balanced_ones_by_one(
    student: str, tmp_path: Path
) -> None:
    """Records of one question share its text, so an epoch of the data loader itself is counted."""
    rows = [row for row in ROWS if row["id"] not in ("sum/0#1", "sum/0#2", "sum/1#1")]
    text = {tuple(tiny_tokenizer()(f"Q: {row['question']}\n")["input_ids"]): row["question"] for row in rows}
    weights = {}
    for name, select in (("flattened", {"draw": "all"}), ("balanced", BALANCED)):
        of_stage = stage({"cot": {**COT, "select": select}}, {"by": "example"}, per_device_train_batch_size=2)
        trainer, _ = make_trainer(of_stage, rows, student, tmp_path / name, {}, "plain")
        counted: Counter[str] = Counter()
        for batch in trainer.get_train_dataloader():
            for ids, counts in zip(batch["input_ids"].tolist(), batch["counts"].sum(1).tolist(), strict=True):
                counted[next(q for prefix, q in text.items() if tuple(ids[: len(prefix)]) == prefix)] += counts
        weights[name] = [counted[f"What is {i} + {i + 1}?"] for i in range(6)]
    assert weights == {"flattened": [1, 2, 3, 3, 3, 3], "balanced": [1] * 6}
