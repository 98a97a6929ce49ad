from __future__ import annotations

import pytest
from pydantic import ValidationError

from dataset_builders.asking import Asker
from dataset_builders.dual_cots import DualCots
from tests.scripted_answers import ScriptedAnswers, build, chain, dual_settings, problem
from toolkit.teachers.protocol import Completion, Request


def right_at_once(kind: str, request: Request) -> str:
    return chain(7) if kind == "cot" else chain(8, "3 + 5 makes it.")


def wrong_at_first(kind: str, request: Request) -> str:
    return chain(8, "3 + 5 makes it.") if kind == "cot" else chain(7)


def test_a_right_chain_is_corrupted_and_a_wrong_one_rectified() -> None:
    def script(kind: str, request: Request) -> str:
        return (right_at_once if "What is easy?" in request.messages[0][1].split("Q: ")[-1] else wrong_at_first)(
            kind, request
        )

    outcome, _ = build(DualCots, dual_settings(), [problem("easy"), problem("hard")], script)

    origins = {row["id"]: (row["right"]["origin"], row["wrong"]["origin"]) for row in outcome.train}
    assert origins == {"easy": ("teacher", "corrupted"), "hard": ("rectified", "teacher")}


def test_a_record_holds_rationales_without_their_clause_and_the_spans_where_they_part() -> None:
    outcome, _ = build(DualCots, dual_settings(), [problem()], right_at_once)

    right, wrong = outcome.train[0]["right"], outcome.train[0]["wrong"]
    assert (right["rationale"], right["answer"]) == ("3 + 4 makes it.", "7")
    assert (wrong["rationale"], wrong["answer"]) == ("3 + 5 makes it.", "8")
    assert right["key_spans"] == wrong["key_spans"] == [{"start": 4, "end": 5}]


def test_provenance_keeps_the_raw_completion_apart_from_what_was_parsed() -> None:
    outcome, requests = build(DualCots, dual_settings(), [problem()], right_at_once)

    provenance = outcome.train[0]["right"]["provenance"]
    assert provenance["completion"] == chain(7)
    assert provenance["request"] == requests[0].digest
    assert (provenance["teacher"], provenance["model"]) == ("scripted", "scripted")
    assert provenance["template"] == requests[0].template


@pytest.mark.parametrize(
    ("kind", "said", "reason"),
    [
        ("cot", "It is seven, I think.\nOr is it?", "cot: no answer clause"),
        ("cot", None, "cot: not recorded"),
        ("cot", "", "cot: empty completion"),
        ("cot", "Therefore, the answer is 7.", "cot: empty rationale"),
        ("cot", chain("7 or 8"), "cot: no answer in the answer clause"),
        ("cot", "3 \0 4. Therefore, the answer is 7.", "cot: holds NUL characters"),
        ("cot", chain(7, "x" * 1_000_000), "cot: longer than 20000 characters"),
        ("cot", Completion(chain(7), finish_reason="length"), "cot: truncated by length"),
        ("cot", Completion(chain(7), finish_reason="content_filter"), "cot: stopped by a content filter"),
        ("cot", Completion("I can't help with that.", finish_reason="refusal"), "cot: the teacher refused"),
        ("contrastive", chain(7, "4 + 3 makes it."), "contrastive: corruption came out right"),
        ("contrastive", chain(8), "contrastive: both rationales are the same"),
        ("contrastive", None, "contrastive: not recorded"),
    ],
)
def test_what_does_not_become_a_dual_is_rejected_with_its_reason(kind: str, said: object, reason: str) -> None:
    def script(asked: str, request: Request) -> object:
        return said if asked == kind else right_at_once(asked, request)

    outcome, _ = build(DualCots, dual_settings(), [problem()], script)  # type: ignore[arg-type]

    assert [row["reason"] for row in outcome.rejected] == [reason]
    assert outcome.train == []


def test_an_ignored_hint_is_rejected_with_both_chains_kept() -> None:
    outcome, _ = build(DualCots, dual_settings(), [problem()], lambda kind, request: chain(8, f"By {kind}."))

    (row,) = outcome.rejected
    assert row["reason"] == "answer_hint: hint ignored"
    assert (row["wrong"]["rationale"], row["right"]["rationale"]) == ("By cot.", "By answer_hint.")


def test_an_endpoint_s_failure_is_quoted_in_the_row_and_summed_up_in_the_yields() -> None:
    asker = Asker(dual_settings(), ScriptedAnswers(lambda *_: None, "HTTP 400: no"), "scripted", "m")
    rounds = DualCots.rounds([problem()], asker, dual_settings())
    list(next(rounds))
    with pytest.raises(StopIteration) as finished:
        next(rounds)

    outcome = finished.value.value
    assert outcome.rejected[0]["reason"] == "cot: failed request: HTTP 400: no"
    assert outcome.steps[0].reasons == {"failed request": 1}


def test_a_filter_asks_again_with_another_sample_index_until_it_accepts() -> None:
    def script(kind: str, request: Request) -> str:
        if kind == "cot":
            return chain(8, "3 + 5 makes it.")
        return chain(7) if request.sample_index == 2 else chain(9)

    outcome, requests = build(DualCots, dual_settings(tries=3), [problem()], script)

    assert [request.sample_index for request in requests] == [0, 0, 1, 2]
    assert outcome.train[0]["right"]["provenance"]["sample_index"] == 2
    assert (outcome.steps[1].accepted, outcome.steps[1].completions) == (1, 3)


def test_tries_are_the_most_a_filter_asks() -> None:
    _, requests = build(DualCots, dual_settings(tries=2), [problem()], lambda *_: chain(8))

    assert len(requests) == 1 + 2


def test_a_request_that_failed_is_not_tried_again() -> None:
    script = lambda kind, request: chain(8) if kind == "cot" else None  # noqa: E731
    _, requests = build(DualCots, dual_settings(tries=3), [problem()], script)

    assert len(requests) == 1 + 1


def test_a_retry_without_an_answer_leaves_the_reason_of_the_try_before() -> None:
    script = lambda kind, request: chain(8, f"By {kind}.") if request.sample_index == 0 else None  # noqa: E731
    outcome, _ = build(DualCots, dual_settings(), [problem()], script)

    assert outcome.rejected[0]["reason"] == "answer_hint: hint ignored"
    assert outcome.rejected[0]["right"]["rationale"] == "By answer_hint."
    assert outcome.steps[1].reasons == {"hint ignored": 1}


def test_samples_become_records_of_their_own_and_repeats_are_rejected() -> None:
    def script(kind: str, request: Request) -> str:
        if kind == "cot":
            return chain(7, f"Way {min(request.sample_index, 1)}.")
        return chain(8, f"Wrong way {request.sample_index}.")

    outcome, _ = build(DualCots, dual_settings(samples=3), [problem("p")], script)

    assert [row["id"] for row in outcome.train] == ["p#0", "p#1"]
    assert [(row["id"], row["reason"]) for row in outcome.rejected] == [
        ("p#2", "cot: the same chain as another sample")
    ]


def test_no_two_samples_share_a_request() -> None:
    _, requests = build(DualCots, dual_settings(samples=2, tries=3), [problem()], lambda *_: chain(8))

    assert len({request.digest for request in requests}) == len(requests)


def exemplar_prompts(names: list[str], exemplars: int = 3) -> dict[str, str]:
    """Return the contrastive prompts of the problems called r..., with those called w... to draw exemplars from."""

    def script(kind: str, request: Request) -> str:
        asked = request.messages[0][1].rsplit("Q: ", 1)[1]
        return (wrong_at_first if asked.startswith("What is w") else right_at_once)(kind, request)

    problems = [problem(name) for name in names]
    _, requests = build(DualCots, dual_settings(exemplars=exemplars), problems, script)
    prompts = [request.messages[0][1] for request in requests if request.template.startswith("contrastive")]
    return {prompt.rsplit("Q: ", 1)[1].split("?")[0]: prompt for prompt in prompts}


def test_exemplars_of_a_contrastive_prompt_are_the_teacher_s_own_rectified_pairs() -> None:
    prompt = exemplar_prompts(["w1", "w2", "r1"])["What is r1"]

    assert prompt.count("Right Response: 3 + 4 makes it.\nTherefore, the answer is 7.") == 3
    assert prompt.count("Wrong Response: 3 + 5 makes it.\nTherefore, the answer is 8.") == 2
    assert prompt.endswith("\n\nWrong Response:")


def test_no_more_exemplars_are_shown_than_asked_for() -> None:
    assert exemplar_prompts(["w1", "w2", "r1"], exemplars=1)["What is r1"].count("Q: What is w") == 1
    assert exemplar_prompts(["w1", "w2", "r1"], exemplars=0)["What is r1"].count("Q: What is w") == 0


def test_another_problem_changes_no_prompt_once_there_are_exemplars_enough() -> None:
    many = [f"w{index}" for index in range(16)]

    before = exemplar_prompts([*many, "r1", "r2"])
    after = exemplar_prompts([*many, "r1", "r2", "w16", "r3"])

    assert before.items() <= after.items()


def test_exemplars_differ_from_problem_to_problem() -> None:
    prompts = exemplar_prompts([*[f"w{index}" for index in range(12)], *[f"r{index}" for index in range(4)]])

    assert len({prompt.rsplit("Q: ", 1)[0] for prompt in prompts.values()}) > 1


def test_the_sft_rendering_closes_with_the_one_answer_phrase() -> None:
    outcome, _ = build(DualCots, dual_settings(), [problem(task_description="Add up.")], right_at_once)

    row = DualCots.sft(outcome.train[0])
    assert row["prompt"] == "Task Description:\nAdd up.\nQ: What is p?\n\nA:\n"
    assert row["completion"] == "3 + 4 makes it.\nTherefore, the answer is 7."


def test_a_teacher_s_mistake_label_reaches_the_wrong_chain() -> None:
    def script(kind: str, request: Request) -> Completion:
        said = right_at_once(kind, request)
        return Completion(said, raw={"procedural": {"mistake": None if kind == "cot" else "calculation"}})

    outcome, _ = build(DualCots, dual_settings(), [problem()], script)

    assert outcome.train[0]["wrong"]["mistake"] == "calculation"


def test_settings_want_a_teacher_or_pairs_but_not_both() -> None:
    with pytest.raises(ValidationError, match="leave out either pairs or teacher"):
        dual_settings(pairs={"path": "x.jsonl"})
    with pytest.raises(ValidationError, match="problems and a teacher, or a file"):
        DualCots.SETTINGS.model_validate({})


def test_recordings_without_a_recorded_teacher_are_a_mistake() -> None:
    with pytest.raises(ValidationError, match="kind 'recorded'"):
        dual_settings(recordings=[{"path": "x.json"}])
