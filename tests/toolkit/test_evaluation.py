"""A student is asked, and what it said survives whatever happens to the process that asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit import evaluation
from toolkit.decode_procedures import Procedure, TurnPlan
from toolkit.decoding import Decoding, generate
from toolkit.errors import UserError
from toolkit.evaluation import EvaluationResult, evaluate_student
from toolkit.problem import Problem, question_columns

PROBLEMS = [
    Problem(id=f"sums/{number}", task="sums", question=f"Tom has {number} boxes. How many apples?", answer=str(number))
    for number in range(5)
]
GREEDY = Decoding(max_new_tokens=6)
SAMPLED = Decoding(max_new_tokens=6, samples=2, temperature=1.0)


ONCE = Procedure((TurnPlan("cot", "Q: {question}\nA:", ((" {answer}", "answer", 1.0),), max_new_tokens=6),))


def prompt(problem: Problem) -> str:
    return f"Q: {problem.question}\nA:"


@pytest.fixture(scope="module")
def student() -> Any:
    return tiny_llama()


def scored(student: Any, folder: Path, settings: Decoding = GREEDY, **changed: Any) -> EvaluationResult:
    arguments = {"problems": PROBLEMS, "batch_size": 2, "seed": 0, "path": folder / "samples.parquet", **changed}
    problems = arguments.pop("problems")
    procedure = arguments.pop("procedure", ONCE)
    return evaluate_student(
        student, tiny_tokenizer(), problems, procedure, settings, columns=question_columns, **arguments
    )


class Interrupted(Exception):
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the student is asked from now on; two more batches after the word `interrupt` stands in it."""
    prompts: list[str] = []
    decode = evaluation.generate_batches

    def recording(model: Any, tokenizer: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        interrupted = "interrupt" in prompts
        prompts.extend(prompt for prompt, _ in rows)
        for place, batch in enumerate(decode(model, tokenizer, rows, *args, **kwargs)):
            if interrupted and place == 2:
                raise Interrupted
            yield batch

    monkeypatch.setattr(evaluation, "generate_batches", recording)
    return prompts


def test_every_completion_is_kept_in_the_file(student: Any, tmp_path: Path) -> None:
    from pyarrow import parquet

    result = scored(student, tmp_path, SAMPLED)
    rows = parquet.read_table(tmp_path / "samples.parquet").to_pylist()
    assert rows == result.rows
    assert [(row["id"], row["sample"]) for row in rows] == [(p.id, sample) for p in PROBLEMS for sample in (0, 1)]
    assert not (tmp_path / "samples.parquet.parts").exists()


def test_completions_are_those_of_the_decoder(student: Any, tmp_path: Path) -> None:
    rows = scored(student, tmp_path).rows
    direct = generate(student, tiny_tokenizer(), [prompt(p) for p in PROBLEMS], max_new_tokens=6, batch_size=5, seed=0)
    assert [row["completion"] for row in rows] == [samples[0].text for samples in direct]


def test_the_summary_names_what_the_score_belongs_to(student: Any, tmp_path: Path) -> None:
    summary = scored(student, tmp_path).summary
    assert summary["n"] == summary["by_task"]["sums"]["n"] == 5
    assert summary["settings"]["turns"][0]["max_new_tokens"] == 6
    assert summary["settings"]["extractor"].startswith("toolkit.answers@")


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_interrupted_evaluation_goes_on_where_it_was_and_ends_the_same(
    student: Any, tmp_path: Path, asked: list[str], settings: Decoding
) -> None:
    whole = scored(student, tmp_path / "whole", settings)
    asked[:] = ["interrupt"]
    with pytest.raises(Interrupted):
        scored(student, tmp_path / "cut", settings)
    asked.clear()
    resumed = scored(student, tmp_path / "cut", settings)
    assert len(asked) == 5 * settings.samples - 4
    assert resumed.rows == whole.rows


def test_a_finished_evaluation_asks_nothing(student: Any, tmp_path: Path, asked: list[str]) -> None:
    first = scored(student, tmp_path)
    asked.clear()
    again = scored(student, tmp_path)
    assert asked == []
    assert again.rows == first.rows


def test_a_new_problem_is_the_only_one_asked(student: Any, tmp_path: Path, asked: list[str]) -> None:
    scored(student, tmp_path, problems=PROBLEMS[:4])
    asked.clear()
    scored(student, tmp_path)
    assert asked == [prompt(PROBLEMS[4])]


@pytest.mark.parametrize(
    "change",
    [{"settings": Decoding(max_new_tokens=5)}, {"seed": 1}, {"student": tiny_llama(seed=1)}],
    ids=["settings", "seed", "student"],
)
def test_completions_of_another_student_or_setting_are_not_taken(
    student: Any, tmp_path: Path, asked: list[str], change: dict[str, Any]
) -> None:
    scored(student, tmp_path)
    asked.clear()
    scored(**{"student": student, "folder": tmp_path, **change})
    assert len(asked) == 5


def test_no_problems_are_a_users_mistake(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in_domain: there are no problems"):
        scored(student, tmp_path, problems=[], title="in_domain")


def test_two_problems_of_one_id_are_a_users_mistake(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ids are not unique"):
        scored(student, tmp_path, problems=[*PROBLEMS, PROBLEMS[0]])
