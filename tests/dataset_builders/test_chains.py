from __future__ import annotations

import pytest

from dataset_builders.chains import parse, sft_record, spelt_like, well_formed, without_one_sided_marks
from tests.scripted_answers import problem


def test_a_run_on_into_another_question_is_cut() -> None:
    text = "Add. Therefore, the answer is 7.\n\nQ: What next?\nA: More. Therefore, the answer is 9."

    assert parse(text, problem(), "stop", 1000) == ("Add.", "7", None)


@pytest.mark.parametrize("clause", ["So the answer is 7.", "The answer is 7.", "Therefore, the answer is 7.", "\nA: 7"])
def test_every_answer_clause_is_taken_off_the_rationale(clause: str) -> None:
    assert parse(f"3 + 4 = 7. {clause}", problem(), "stop", 1000) == ("3 + 4 = 7.", "7", None)


@pytest.mark.parametrize(
    ("gold", "answer", "kind", "spelt"),
    [
        ("D", "(A)", "choice", "A"),
        ("(D)", "(A)", "choice", "(A)"),
        ("False", "yes", "boolean", "True"),
        ("no", "True", "boolean", "yes"),
        ("invalid", "valid", "boolean", "valid"),
        ("Paris", "Rome", "text", "Rome"),
    ],
)
def test_an_answer_is_spelt_as_the_gold_is(gold: str, answer: str, kind: str, spelt: str) -> None:
    assert spelt_like(gold, answer, kind) == spelt


def test_calculator_marks_go_where_only_one_side_has_them() -> None:
    marked = "3*4=<<3*4=12>>12"

    assert without_one_sided_marks(marked, "3*4=12") == ("3*4=12", "3*4=12")
    assert without_one_sided_marks(marked, marked) == (marked, marked)


@pytest.mark.parametrize(
    ("description", "begins"), [("Add up.", "Task Description:\nAdd up.\nQ: 3 + 4?"), ("", "Q: 3 + 4?")]
)
def test_a_prompt_ready_for_training_holds_the_task_s_description(description: str, begins: str) -> None:
    record = {"id": "p", "task": "sums", "task_description": description, "question": "3 + 4?"}
    assert sft_record(record, {"rationale": "3 + 4 = 7.", "answer": "7"}) == {
        "id": "p",
        "task": "sums",
        "prompt": f"{begins}\n\nA:\n",
        "completion": "3 + 4 = 7.\nTherefore, the answer is 7.",
    }


def test_a_lone_surrogate_becomes_one_replacement_character() -> None:
    assert well_formed("a\ud800b😀") == "a\N{REPLACEMENT CHARACTER}b😀"
