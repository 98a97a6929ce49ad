from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataset_builders.asking import Asker, Outcome
from dataset_builders.decomposition import numbered_steps
from dataset_builders.socratic_steps import SocraticSteps
from tests.scripted_answers import ScriptedAnswers, build, outcome_of, problem
from toolkit.errors import UserError
from toolkit.teachers.protocol import Completion, Request

TWO = [("How many at first?", "3 at first."), ("How many in the end?", "3 + 4 = 7.")]
GOOD = "Q1: How many at first?\nA1: 3 at first.\nQ2: How many in the end?\nA2: 3 + 4 = 7.\nTherefore, the answer is 7."


def settings(**more: Any) -> Any:
    given = {"problems": {"source": "procedural"}, "teacher": {"kind": "procedural"}, **more}
    return SocraticSteps.SETTINGS.model_validate(given)


# --- asked of a teacher --------------------------------------------------------------------------------------------


def test_steps_become_a_list_whose_last_item_is_the_final_question() -> None:
    outcome, requests = build(SocraticSteps, settings(), [problem()], lambda *_: GOOD)

    (row,) = outcome.train
    assert row["steps"] == [
        {"label": "Sub-question", "question": "How many at first?", "answer": "3 at first."},
        {"label": "Final question", "question": "How many in the end?", "answer": "3 + 4 = 7."},
    ]
    assert (row["chain"]["rationale"], row["chain"]["answer"]) == ("3 at first.\n3 + 4 = 7.", "7")
    assert row["chain"]["provenance"]["request"] == requests[0].digest
    assert row["chain"]["provenance"]["completion"] == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "Q1: How many at first?\n\nA1: 3 at first.\n\n\nQ2: How many in the end?\nA2: 3 + 4 = 7.\n",
        "**Q1:** How many at first?\n**A1:** 3 at first.\n**Q2:** How many in the end?\n**A2:** 3 + 4 = 7.",
        "**Q1: How many at first?**\nA1: 3 at first.\n**Q2: How many in the end?**\nA2: 3 + 4 = 7.",
        "Sure!\n\n- Q1. How many at first?\n- A1. 3 at first.\n- Q2. How many in the end?\n- A2. 3 + 4 = 7.",
        "### Q 1) How many at first?\nA 1) 3 at first.\n### Q 2) How many in the end?\nA 2) 3 + 4 = 7.",
        "Q3: How many at first?\r\nA3: 3 at first.\r\nQ7: How many in the end?\r\nA7: 3 + 4 = 7.",
    ],
    ids=["blank lines", "bold marks", "bold questions", "a list below words", "headings", "odd numbers"],
)
def test_the_form_of_the_lines_does_not_matter(text: str) -> None:
    assert numbered_steps(text) == (TWO, None)


@given(st.lists(st.sampled_from(["Q1:", "A1:", "Q2:", "A2:", "**", "\n", "- ", "What?", "3.", " "]), max_size=30))
@hypothesis_settings(deadline=None)
def test_steps_are_whole_lines_or_there_are_none(pieces: list[str]) -> None:
    steps, fault = numbered_steps("".join(pieces))

    assert bool(steps) == (fault is None)
    assert all(piece.strip() == piece != "" and "\n" not in piece for step in steps for piece in step)


CLAUSE = "\nTherefore, the answer is 7."


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("We add 3 and 4." + CLAUSE, "no sub-questions"),
        ("Q1: How many?\nA1: 3 + 4 = 7." + CLAUSE, "fewer than 2 sub-questions"),
        ("Q1: How many?\nQ2: And then?\nA2: 7." + CLAUSE, "sub-questions and answers do not alternate"),
        ("Q1: How many?\nA1: 3.\nQ2: And then?" + CLAUSE, "sub-questions and answers do not alternate"),
        ("Q1: How many?\nA2: 3.\nQ2: And then?\nA1: 7." + CLAUSE, "sub-questions and answers do not alternate"),
        ("A1: 3.\nQ1: How many?\nA2: 7.\nQ2: And then?" + CLAUSE, "sub-questions and answers do not alternate"),
        ("Q1: How many?\nA1:\nQ2: And then?\nA2: 7." + CLAUSE, "an empty sub-question or answer"),
        ("Q1: **\nA1: 3.\nQ2: And then?\nA2: 7." + CLAUSE, "an empty sub-question or answer"),
        ("Q1: How?\nA1: 3.\nOr so.\nQ2: Then?\nA2: 7." + CLAUSE, "a sub-question or answer of several lines"),
        (GOOD.replace("is 7", "is 8"), "final answer is wrong"),
        (GOOD.removesuffix(CLAUSE), "no answer clause"),
        (Completion(GOOD, finish_reason="length"), "truncated by length"),
        ("", "empty completion"),
        (None, "not recorded"),
    ],
)
def test_what_is_no_decomposition_is_rejected_with_its_reason(said: object, reason: str) -> None:
    outcome, _ = build(SocraticSteps, settings(), [problem()], lambda *_: said)  # type: ignore[arg-type,return-value]

    assert [row["reason"] for row in outcome.rejected] == [reason]
    assert outcome.steps[0].reasons == {reason: 1}


def test_a_question_is_asked_again_until_its_steps_are_as_they_should_be() -> None:
    def script(kind: str, request: Request) -> str:
        return GOOD if request.sample_index == 1 else GOOD.replace("is 7", "is 8")

    outcome, requests = build(SocraticSteps, settings(), [problem()], script)

    assert [request.sample_index for request in requests] == [0, 1]
    assert (len(outcome.train), outcome.steps[0].completions) == (1, 2)


def test_fewest_steps_are_a_setting() -> None:
    outcome, _ = build(SocraticSteps, settings(min_steps=3), [problem()], lambda *_: GOOD)

    assert outcome.rejected[0]["reason"] == "fewer than 3 sub-questions"
    assert len(outcome.rejected[0]["steps"]) == 2


def test_the_sft_rendering_is_question_and_answer_in_turn_and_the_clause() -> None:
    outcome, _ = build(SocraticSteps, settings(), [problem()], lambda *_: GOOD)

    row = SocraticSteps.sft(outcome.train[0])
    assert row["prompt"] == "Q: What is p?\n\nA:\n"
    assert row["completion"] == (
        "Sub-question: How many at first?\n3 at first.\n"
        "Final question: How many in the end?\n3 + 4 = 7.\n"
        "Therefore, the answer is 7."
    )


def test_views_may_take_what_is_in_the_steps() -> None:
    assert {"steps[].label", "steps[].question", "steps[].answer", "chain.rationale"} <= SocraticSteps.COLUMNS
    assert "steps" not in SocraticSteps.COLUMNS


def test_settings_want_a_teacher_or_ready_made_steps_but_not_both() -> None:
    with pytest.raises(ValidationError, match="leave out either decomposed or teacher"):
        settings(decomposed={"path": "x.jsonl"})
    with pytest.raises(ValidationError, match="problems and a teacher, or a file"):
        SocraticSteps.SETTINGS.model_validate({})


# --- ready-made ----------------------------------------------------------------------------------------------------


def row(
    answer: str = "How many? ** 3 at first.\nAnd then? ** 3 + 4 = <<3+4=7>>7.\n#### 7", **more: Any
) -> dict[str, Any]:
    return {"question": "3 + 4?", "answer": answer, **more}


def built(path: Path, *rows: object, **more: Any) -> Outcome:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in rows))
    return replayed({"path": str(path), "task": "sums", **more})


def replayed(decomposed: dict[str, Any]) -> Outcome:
    made = SocraticSteps.SETTINGS.model_validate({"decomposed": decomposed})
    asker = Asker(made, ScriptedAnswers(lambda *_: None), "paired", "")
    return outcome_of(SocraticSteps, made, [], asker)


def test_ready_made_steps_become_a_record_without_calculator_marks(tmp_path: Path) -> None:
    (made,) = built(tmp_path / "steps.jsonl", row(), model="people").train

    assert made["steps"][1] == {"label": "Final question", "question": "And then?", "answer": "3 + 4 = 7."}
    assert (made["question"], made["answer"], made["task"]) == ("3 + 4?", "7", "sums")
    assert made["chain"]["answer"] == "7"
    assert made["chain"]["provenance"]["teacher"] == "decomposed"
    assert made["chain"]["provenance"]["model"] == "people"
    assert made["chain"]["provenance"]["completion"] == row()["answer"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("How many? ** 3.\nAnd then 7.\n#### 7", "a line without sub-question"),
        ("How many? ** 7.\n#### 7", "fewer than 2 sub-questions"),
        ("How many? ** \nAnd then? ** 7.\n#### 7", "an empty sub-question or answer"),
        ("#### 7", "fewer than 2 sub-questions"),
        ("How many? ** " + "x" * 30_000 + "\n#### 7", "longer than 20000 characters"),
    ],
)
def test_ready_made_steps_are_judged_by_the_same_rules(tmp_path: Path, answer: str, reason: str) -> None:
    assert [made["reason"] for made in built(tmp_path / "steps.jsonl", row(answer)).rejected] == [reason]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("How many? ** 7.")], r"steps\.jsonl:1: no gold answer"),
        ([{"question": "?"}], r"steps\.jsonl:1: no column 'answer'"),
        ([row(), "{not json\n"], r"steps\.jsonl:2: is not JSON"),
        ([], "is empty"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(tmp_path / "steps.jsonl", *rows)


SOCRATIC = Path(__file__).parents[2].parent / "shared" / "data" / "gsm8k" / "test_socratic.jsonl.gz"


@pytest.mark.data
@pytest.mark.skipif(not SOCRATIC.is_file(), reason=f"real data is not at {SOCRATIC}")
def test_gsm8k_s_socratic_file_is_read_but_for_lines_that_lack_a_side() -> None:
    outcome = replayed({"path": str(SOCRATIC), "task": "gsm8k", "kind": "number"})
    with gzip.open(SOCRATIC, "rt", encoding="utf-8") as file:
        lines = [json.loads(line)["answer"].split("\n") for line in file]

    # By another path: a line is complete if something stands on either side of the stars, marks aside.
    complete = [
        all(all(side.strip() for side in line.split("**")) for line in answer[:-1]) and len(answer) > 2
        for answer in lines
    ]
    assert len(outcome.train) == sum(complete) >= 1310
    assert {made["reason"] for made in outcome.rejected} == {"an empty sub-question or answer"}
    kept = [answer for answer, whole in zip(lines, complete, strict=True) if whole]
    assert [len(made["steps"]) for made in outcome.train] == [len(answer) - 1 for answer in kept]
    assert not [made for made in outcome.train if "<<" in made["chain"]["rationale"]]
    ends = [made["answer"].replace(",", "") in made["steps"][-1]["answer"].replace(",", "") for made in outcome.train]
    assert sum(ends) >= 0.99 * len(ends)
