from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dataset_builders.counterfactual_rationales import CounterfactualRationales
from tests.scripted_answers import build, chain, problem
from toolkit.teachers.protocol import Completion, Request


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, **more}
    return CounterfactualRationales.SETTINGS.model_validate(given)


def given_in(prompt: str) -> str:
    return prompt.partition("Given answer: ")[2].partition("\n")[0]


def obedient(kind: str, request: Request) -> str:
    answer = given_in(request.messages[0][1])
    return chain(answer, f"This makes {answer}.")


def on_the_other_side(said: object) -> Any:
    """Return a script that says this where the wrong answer is given, and obeys elsewhere."""
    return lambda kind, request: obedient(kind, request) if given_in(request.messages[0][1]) == "7" else said


def test_both_sides_end_in_the_answer_that_was_given_to_each() -> None:
    outcome, requests = build(CounterfactualRationales, settings(), [problem()], obedient)

    (row,) = outcome.train
    other = row["counterfactual"]["answer"]
    assert other in {"5", "6", "8", "9", "17"}
    assert row["factual"]["rationale"] == "This makes 7."
    assert row["counterfactual"]["rationale"] == f"This makes {other}."
    assert [row[side]["provenance"]["request"] for side in ("factual", "counterfactual")] == [
        r.digest for r in requests
    ]
    assert (row["answer"], row["kind"], row["reason"]) == ("7", "auto", None)


def test_both_sides_are_asked_with_one_prompt_that_differs_in_the_given_answer_alone() -> None:
    outcome, requests = build(CounterfactualRationales, settings(), [problem()], obedient)

    prompts = [request.messages[0][1] for request in requests]
    other = outcome.train[0]["counterfactual"]["answer"]
    assert len({request.template for request in requests}) == 1
    assert prompts[1] == prompts[0].replace("Given answer: 7", f"Given answer: {other}")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (chain(7, "Rather 7."), "reasoning ends in the gold answer all the same"),
        (chain(4711), "reasoning ends in another answer than the one given"),
        ("I would rather not.\nIt is wrong.", "no answer clause"),
        (Completion(chain(8), finish_reason="length"), "truncated by length"),
        (None, "not recorded"),
    ],
)
def test_a_counterfactual_side_that_is_none_rejects_the_record_with_its_reason(said: object, reason: str) -> None:
    outcome, _ = build(CounterfactualRationales, settings(), [problem()], on_the_other_side(said))

    (row,) = outcome.rejected
    assert row["reason"] == f"counterfactual: {reason}"
    assert row["factual"]["rationale"] == "This makes 7."
    assert outcome.steps[2].reasons == {reason: 1}


def test_the_same_reasons_for_both_answers_are_no_reasons() -> None:
    script = lambda kind, request: chain(given_in(request.messages[0][1]))  # noqa: E731
    outcome, _ = build(CounterfactualRationales, settings(), [problem()], script)

    assert [row["reason"] for row in outcome.rejected] == ["counterfactual: both rationales are the same"]


def test_a_question_without_its_factual_side_is_not_asked_for_the_other() -> None:
    outcome, requests = build(CounterfactualRationales, settings(tries=2), [problem()], lambda *_: chain(4711))

    assert [given_in(request.messages[0][1]) for request in requests] == ["7", "7"]
    assert outcome.rejected[0]["reason"] == "factual: reasoning ends in another answer than the one given"
    assert outcome.rejected[0]["counterfactual"] is None


def test_a_question_without_a_wrong_answer_is_rejected_and_never_asked() -> None:
    choice = problem(answer="(B)", kind="choice")
    outcome, requests = build(CounterfactualRationales, settings(), [choice], obedient)

    assert requests == []
    assert outcome.rejected[0]["reason"] == "no other answer: no wrong option is known"
    assert (outcome.rejected[0]["factual"], outcome.rejected[0]["counterfactual"]) == (None, None)


def test_each_side_is_asked_again_with_another_sample_index() -> None:
    def script(kind: str, request: Request) -> str:
        return obedient(kind, request) if request.sample_index == 1 else chain(4711)

    outcome, requests = build(CounterfactualRationales, settings(tries=3), [problem()], script)

    assert [request.sample_index for request in requests] == [0, 1, 0, 1]
    assert outcome.train[0]["counterfactual"]["provenance"]["sample_index"] == 1
    assert [(step.name, step.completions) for step in outcome.steps] == [
        ("other_answer", 0),
        ("factual", 2),
        ("counterfactual", 2),
    ]


def test_contrastive_requests_carry_the_prompt_of_the_other_side() -> None:
    recorded = {"kind": "recorded", "store": "their.sqlite"}
    _, plain = build(CounterfactualRationales, settings(), [problem()], obedient)
    _, requests = build(CounterfactualRationales, settings(contrastive=True, teacher=recorded), [problem()], obedient)

    factual, counterfactual = requests
    assert factual.contrast == counterfactual.messages[0][1]
    assert counterfactual.contrast == factual.messages[0][1]
    assert [request.contrast for request in plain] == [None, None]


@pytest.mark.parametrize("teacher", [{"kind": "procedural"}, {"kind": "openai", "model": "m"}])
def test_contrastive_decoding_wants_a_teacher_that_can(teacher: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="teacher of kind 'transformers'"):
        settings(contrastive=True, teacher=teacher)


def test_another_seed_gives_other_wrong_answers() -> None:
    problems = [problem(f"p{i}") for i in range(20)]

    drawn = [
        [row["counterfactual"]["answer"] for row in build(CounterfactualRationales, made, problems, obedient)[0].train]
        for made in (settings(), settings(), settings(seed=1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_answers_are_spelt_as_they_were_given() -> None:
    script = lambda kind, request: chain(f"{given_in(request.messages[0][1])}.00", f"By {request.digest}.")  # noqa: E731
    outcome, _ = build(CounterfactualRationales, settings(), [problem()], script)

    assert outcome.train[0]["factual"]["answer"] == "7"
    assert "." not in outcome.train[0]["counterfactual"]["answer"]


def test_the_sft_rendering_is_the_factual_side() -> None:
    outcome, _ = build(CounterfactualRationales, settings(), [problem()], obedient)

    row = CounterfactualRationales.sft(outcome.train[0])
    assert row["completion"] == "This makes 7.\nTherefore, the answer is 7."


def test_views_may_take_both_sides() -> None:
    paths = {f"{side}.{part}" for side in ("factual", "counterfactual") for part in ("rationale", "answer")}
    assert paths <= CounterfactualRationales.COLUMNS
