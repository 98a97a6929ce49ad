from __future__ import annotations

from typing import Any

from dataset_builders.asking import Outcome
from dataset_builders.columns import leaves
from dataset_builders.teacher_cots import TeacherCots
from tests.scripted_answers import build, chain, problem
from toolkit.teachers.protocol import Completion, Request


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, **more}
    return TeacherCots.SETTINGS.model_validate(given)


def right_for_even_samples(kind: str, request: Request) -> str:
    return chain(7 + request.sample_index % 2, f"Way {request.sample_index}.")


def test_right_samples_are_kept_and_wrong_ones_rejected() -> None:
    outcome, _ = build(TeacherCots, settings(samples=4), [problem("p")], right_for_even_samples)

    assert [row["id"] for row in outcome.train] == ["p#0", "p#2"]
    assert {row["reason"] for row in outcome.rejected} == {"final answer is wrong"}


def test_all_samples_may_be_kept_and_are_told_apart() -> None:
    outcome, _ = build(TeacherCots, settings(samples=4, keep="all"), [problem()], right_for_even_samples)

    assert [row["correct"] for row in outcome.train] == [True, False, True, False]


def test_a_sample_that_repeats_another_is_rejected() -> None:
    outcome, _ = build(TeacherCots, settings(samples=2), [problem()], lambda *_: chain(7))

    assert [row["reason"] for row in outcome.rejected] == ["the same chain as another sample"]


def test_the_sft_rendering_is_the_chain_with_its_answer() -> None:
    outcome, _ = build(TeacherCots, settings(), [problem()], lambda *_: chain(7))

    assert TeacherCots.sft(outcome.train[0])["completion"] == "3 + 4 makes it.\nTherefore, the answer is 7."


def test_log_probabilities_are_published_where_they_were_asked_for() -> None:
    token = {"token": "7\ud800", "logprob": -0.5, "top_logprobs": [{"token": "7", "logprob": -0.5}]}
    raw = {"choices": [{"logprobs": {"content": [token]}}]}

    outcome, requests = build(
        TeacherCots,
        settings(samples=2, sampling={"top_logprobs": 1}),
        [problem()],
        lambda _, request: Completion(chain(7), raw=raw) if request.sample_index else None,
    )

    (kept,), (failed,) = outcome.train, outcome.rejected
    assert kept["chain"]["logprobs"] == [
        {"token": "7\ufffd", "logprob": -0.5, "top": [{"token": "7", "logprob": -0.5}]}
    ]
    assert failed["chain"]["logprobs"] is None
    assert {request.sampling.top_logprobs for request in requests} == {1}
    assert "chain.logprobs[].top[].token" in dict(leaves(TeacherCots.tables(outcome)["default"]))


def test_nobody_gets_a_column_of_log_probabilities_that_were_not_asked_for() -> None:
    outcome, _ = build(TeacherCots, settings(), [problem()], lambda *_: chain(7))

    assert "logprobs" not in outcome.train[0]["chain"]
    assert TeacherCots.tables(outcome) == TeacherCots.tables(Outcome())
