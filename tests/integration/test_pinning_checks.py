"""Checks that pin what methods of the literature mean here, numbered as in the notes on their common primitives.

Number 8 (a contrastive teacher) concerns other modules.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.chains import ANSWERS, COT, LABEL, POST, PROMPT, RATIONALE, REASONS, chains, stage
from tests.gradients import Gradients, difference
from tests.records import saved_student
from tests.soft_chains import SOFT, soft_chains
from tests.tiny_students import tiny_tokenizer
from toolkit.answers import extract
from toolkit.decode_procedures import Procedure, converse, plan
from toolkit.decoding import Generation, generate
from toolkit.encoding import encode
from toolkit.problem import Problem, question_columns
from toolkit.recipe import Decode, View
from toolkit.sampling import BalancedSampler, balanced_seeds
from toolkit.stages import make_trainer

pytestmark = pytest.mark.slow

ROWS = chains(4)
BY_VIEW = {"by": "view", "over": "all"}
Views = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def trained(student: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that trains one step of all sequences; returns the loss, its log and the gradient.

    What is the same in several tests is trained once.
    """
    folder = tmp_path_factory.mktemp("trained")
    known: dict[str, tuple[float, dict[str, float], torch.Tensor]] = {}

    def step(
        views: Views, reduction: dict[str, str] | None = None, rows: list[dict[str, Any]] = ROWS, **training: Any
    ) -> tuple[float, dict[str, float], torch.Tensor]:
        key = json.dumps([views, reduction, rows, training])
        if key in known:
            return known[key]
        training = {"per_device_train_batch_size": 8, "max_grad_norm": 0.0} | training
        of_stage = stage(views, reduction or BY_VIEW, **training)
        trainer, _ = make_trainer(of_stage, rows, student, folder / "out", {}, "plain")
        gradients = Gradients()
        trainer.add_callback(gradients)
        trainer.train()
        (gradient,) = gradients.steps
        log = next(entry for entry in trainer.state.log_history if "loss" in entry)
        known[key] = log["loss"], log, gradient
        return known[key]

    return step


def times(view: dict[str, Any], coefficient: float) -> dict[str, Any]:
    return {**view, "coefficient": coefficient}


# --- 1 and 2: tasks of one mixture


TASKS: dict[str, Views] = {
    "distilling step by step": {"label": LABEL, "rationale": REASONS},
    "multi-task with the answer first": {"label": LABEL, "post": POST},
    "multi-task with the answer last": {"label": LABEL, "cot": COT},
    "cascade": {"answer": ANSWERS, "rationale": REASONS},
}


@pytest.mark.parametrize("method", TASKS)
def test_1_and_2_a_mixture_is_alpha_of_one_task_and_the_rest_of_the_other(trained: Any, method: str) -> None:
    alpha = 0.3
    (first, one), (second, other) = TASKS[method].items()
    loss, log, gradient = trained({first: times(one, alpha), second: times(other, 1 - alpha)})
    alone, rest = trained({first: one}), trained({second: other})
    assert loss == pytest.approx(alpha * alone[0] + (1 - alpha) * rest[0], rel=1e-6)
    assert difference(gradient, alpha * alone[2] + (1 - alpha) * rest[2]) < 1e-6
    assert log[f"loss/{first}"] + log[f"loss/{second}"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("method", TASKS)
def test_1_and_2_a_task_of_no_share_is_not_there(trained: Any, method: str) -> None:
    """DSS at alpha 1 is label-only training and at 0 rationale-only; MT-Ra at 0 is post-CoT; CasCoD likewise."""
    (first, one), (second, other) = TASKS[method].items()
    assert torch.equal(trained({first: one, second: times(other, 0)})[2], trained({first: one})[2])
    assert torch.equal(trained({first: times(one, 0), second: other})[2], trained({second: other})[2])


# --- 3: SCOTT's counterfactual view

COUNTERFACTUAL: dict[str, Any] = {
    "prompt": "[counterfactual] " + PROMPT,
    "target": [
        {"text": " {counterfactual.rationale}", "weight": 0.0},
        {"text": "\nTherefore, the answer is", "weight": 0.0},
        " {counterfactual.answer}",
    ],
}


def test_3_only_the_answer_and_the_end_are_scored_in_the_counterfactual_view() -> None:
    tokenizer = tiny_tokenizer()
    columns, _ = encode(tokenizer, ROWS, stage({"k": COUNTERFACTUAL}, BY_VIEW), None)
    for row, ids, weights, counts in zip(
        ROWS, columns["input_ids"], columns["weights"], columns["counts"], strict=True
    ):
        answer = tokenizer(f" {row['counterfactual']['answer']}")["input_ids"]
        expected = [0.0] * (len(ids) - len(answer) - 1) + [1.0] * (len(answer) + 1)
        assert weights == counts == expected


def test_3_the_logits_of_the_counterfactual_rationale_get_no_gradient(student: str, tmp_path: Path) -> None:
    trainer, _ = make_trainer(stage({"k": COUNTERFACTUAL}, BY_VIEW), ROWS, student, tmp_path, {}, "plain")
    batch = next(iter(trainer.get_train_dataloader()))
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    trainer.model.lm_head.register_forward_hook(keep)
    scored = (batch["weights"] != 0)[:, 1:]
    trainer.compute_loss(trainer.model, batch).backward()
    (logits,) = seen
    # Nothing but the scored tokens is projected at all, and every one of them has a gradient.
    assert logits[..., 0].numel() == scored.sum() > 0
    assert (logits.grad != 0).any(-1).all()


def test_3_another_counterfactual_rationale_changes_the_loss_as_context(trained: Any) -> None:
    rows = [
        {**row, "counterfactual": {**row["counterfactual"], "rationale": "Suppose it were another sum."}}
        for row in ROWS
    ]
    one, other = (trained({"k": COUNTERFACTUAL}, rows=which)[0] for which in (ROWS, rows))
    assert abs(one - other) > 1e-3


# --- 4: soft targets


def test_4_a_soft_target_of_one_token_is_the_token(trained: Any) -> None:
    rows = soft_chains(4)
    for token in (token for row in rows for token in row["chain"]["logprobs"]):
        token["top"] = [{"token": token["token"], "logprob": 0.0}]
    hard, soft = trained({"cot": COT}, rows=rows), trained({"cot": SOFT}, rows=rows)
    assert soft[0] == pytest.approx(hard[0], rel=1e-6)
    assert difference(soft[2], hard[2]) < 1e-6


# --- 5: transforms


def targets(view: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Return the decoded targets that a view trains on, one for each record, without the end of sequence."""
    tokenizer = tiny_tokenizer()
    columns, _ = encode(tokenizer, rows, stage({"view": view}), None)
    prompts = [f"Q: {row['question']}\nA:" for row in rows]
    texts = [tokenizer.decode(ids[:-1]) for ids in columns["input_ids"]]
    return [text.removeprefix(prompt).removeprefix(" ") for text, prompt in zip(texts, prompts, strict=True)]


def rationales(*transform: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": PROMPT, "target": [{"text": RATIONALE, "transform": list(transform)}]}


MANY = chains(8, each=2)
PLAIN = [row["chain"]["rationale"] for row in MANY]


def test_5_a_shuffle_keeps_the_words_and_their_number() -> None:
    shuffled = targets(rationales({"kind": "shuffle"}), MANY)
    assert [Counter(text.split()) for text in shuffled] == [Counter(text.split()) for text in PLAIN]
    assert shuffled != PLAIN


@pytest.mark.parametrize("among", ["any", "same_label", "other_label"])
def test_5_a_swap_leaves_no_chain_where_it_was_and_may_keep_the_label(among: str) -> None:
    rows = [{**row, "answer": "odd" if number % 4 < 2 else "even"} for number, row in enumerate(MANY)]
    swapped = targets(rationales({"kind": "swap", "among": among}), rows)
    assert sorted(swapped) == sorted(PLAIN)
    assert not any(one == other for one, other in zip(swapped, PLAIN, strict=True))
    if among != "any":
        label = {row["chain"]["rationale"]: row["answer"] for row in rows}
        kept = [label[text] == row["answer"] for text, row in zip(swapped, rows, strict=True)]
        assert kept == [among == "same_label"] * len(rows)


@pytest.mark.parametrize("unit", ["word", "token"])
def test_5_a_mask_of_nothing_is_the_identity_and_one_of_all_leaves_nothing(unit: str) -> None:
    mask = {"kind": "mask", "unit": unit, "symbol": "_"}
    assert targets(rationales({**mask, "share": 0.0}), MANY) == PLAIN
    masked = targets(rationales({**mask, "share": 1.0}), MANY)
    assert all(set(text) <= {"_", " "} for text in masked)
    if unit == "word":
        assert [len(text.split()) for text in masked] == [len(text.split()) for text in PLAIN]


# --- 6: the answer first costs no longer completions


def test_6_an_answer_that_is_written_first_takes_no_more_tokens(student: str, tmp_path: Path) -> None:
    rows = ROWS[:2]
    tokenizer = tiny_tokenizer()
    lengths: dict[str, list[int]] = {}
    said: dict[str, list[str]] = {}
    delimiter = "\nBecause"
    for name, view in (("label", LABEL), ("post", POST)):
        of_stage = stage({name: view}, max_steps=60, learning_rate=1e-2, per_device_train_batch_size=2)
        trainer, _ = make_trainer(of_stage, rows, student, tmp_path / name, {}, "plain")
        trainer.train()
        prompts = [f"Q: {row['question']}\nA:" for row in rows]
        stop = (delimiter,) if name == "post" else ()
        samples = generate(trainer.model, tokenizer, prompts, max_new_tokens=64, batch_size=2, seed=0, stop=stop)
        said[name] = [sample.text for (sample,) in samples]
        lengths[name] = [sample.tokens for (sample,) in samples]
    assert said["label"] == said["post"] == [f" {row['answer']}" for row in rows], "both learnt it by heart"
    more = len(tokenizer(delimiter)["input_ids"]) - 1  # the delimiter instead of the end of sequence
    assert lengths["post"] == [length + more for length in lengths["label"]]


# --- 7: how long a rationale is


def doubled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records with every rationale written twice."""
    return [{**row, "chain": {**row["chain"], "rationale": " ".join([row["chain"]["rationale"]] * 2)}} for row in rows]


@pytest.mark.parametrize(
    "method", ["distilling step by step", "cascade"], ids=["beside the label", "beside the cascade's answer"]
)
def test_7_by_view_the_answers_term_does_not_depend_on_the_length_of_rationales(trained: Any, method: str) -> None:
    rationale = {**REASONS, "target": [" {longer}"]}
    views = {"first": next(iter(TASKS[method].values())), "rationale": rationale}
    # A column of its own: the answer's view of a cascade would read the longer one too.
    rows, longer = (
        [{**row, "longer": of_row["chain"]["rationale"]} for row, of_row in zip(ROWS, which, strict=True)]
        for which in (ROWS, doubled(ROWS))
    )
    for by, is_same in (("view", True), ("token", False)):
        one, other = (trained(views, {"by": by, "over": "all"}, rows=which)[1] for which in (rows, longer))
        assert (one["loss/first"] == pytest.approx(other["loss/first"], rel=1e-6)) is is_same


# --- 9: several chains to a question


def test_9_a_question_weighs_as_many_as_its_chains_or_one() -> None:
    rows = [row for row in chains(3, each=3) if row["id"] not in ("sum/0#1", "sum/0#2", "sum/1#1")]
    of_question: dict[str, list[Counter[str]]] = {}
    for draw in ("all", "balanced"):
        of_stage = stage({"cot": {**COT, "select": {"draw": draw}}, "label": times(LABEL, 0)})
        columns, _ = encode(tiny_tokenizer(), rows, of_stage, None)
        questions = [row["question"] for row in rows]
        assert len(columns["input_ids"]) == len(rows)
        if draw == "all":
            of_question[draw] = [Counter(questions)]
            continue
        views = [views[0] for views in columns["views"]]
        sampler = BalancedSampler(columns["question"], columns["record"], views, balanced_seeds(of_stage), 0)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            of_question.setdefault(draw, []).append(Counter(questions[place] for place in sampler))
    names = [f"What is {i} + {i + 1}?" for i in range(3)]
    assert of_question["all"] == [Counter(dict(zip(names, (1, 2, 3), strict=True)))]
    assert of_question["balanced"] == [Counter(names)] * 3


# --- 10: which mention of an answer counts


@pytest.mark.parametrize(
    ("view", "completion", "expected"),
    [
        (COT, " (A) is near, so the answer is (B).", "B"),
        (POST, " (A)\nBecause it is near, so the answer is (B).", "A"),
    ],
    ids=["the last one behind a chain", "the first one before a chain"],
)
def test_10_the_last_answer_counts_behind_a_chain_and_the_first_one_before_it(
    view: dict[str, Any], completion: str, expected: str
) -> None:
    problem = Problem(id="p", task="t", question="Which?", answer="(B)", kind="choice", choices=("red", "blue"))
    of = Procedure((plan("view", View.model_validate(view), Decode(view="view")),))
    conversation = converse(of, question_columns(problem))
    next(conversation)
    with pytest.raises(StopIteration) as finished:
        conversation.send(Generation(completion, 9, True))
    found = extract(finished.value.value.answer, "choice", problem.choices)
    assert found is not None
    assert found.strip("()") == expected


# --- CasCoD, section 8


def test_cascod_the_loss_is_that_of_one_forward_of_all_or_of_several(trained: Any) -> None:
    views = {"answer": times(ANSWERS, 0.3), "rationale": times(REASONS, 0.7)}
    loss, _, gradient = trained(views)
    for size in (1, 2, 4):
        split = trained(views, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        assert split[0] == pytest.approx(loss, rel=1e-5)
        assert difference(split[2], gradient) < 1e-5


def test_cascod_a_longer_rationale_is_context_alone_to_the_answer(student: str, tmp_path: Path) -> None:
    """Its tokens are not scored in the answer's view, so the term is still the mean over the answer's own tokens."""
    model = AutoModelForCausalLM.from_pretrained(student)
    tokenizer = tiny_tokenizer()
    rows = doubled(ROWS)
    total, count = 0.0, 0
    for row in rows:
        prompt = f"Q: {row['question']}\nA: {row['chain']['rationale']}\nTherefore, the answer is"
        answer = [*tokenizer(f" {row['answer']}.")["input_ids"], tokenizer.eos_token_id]
        ids = tokenizer(prompt)["input_ids"] + answer
        chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(chances[len(ids) - len(answer) + t - 1, token].item() for t, token in enumerate(answer))
        count += len(answer)
    of_stage = stage(
        {"answer": times(ANSWERS, 0.3), "rationale": times(REASONS, 0.7)}, BY_VIEW, per_device_train_batch_size=8
    )
    trainer, _ = make_trainer(of_stage, rows, student, tmp_path, {}, "plain")
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["loss/answer"] == pytest.approx(0.3 * total / count, rel=1e-5)
