"""What completions are worth: judged one by one, added up, and shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from toolkit.decode_procedures import Answered, Said
from toolkit.decoding import Generation
from toolkit.problem import Problem
from toolkit.scores import Row, Score, format_scores_table, judge, score_by_task, score_rows, write_scores


def judged(*completions: str | list[str], gold: str = "4", **problem: Any) -> list[Row]:
    """Judge completions of as many problems, all with the same gold; a list is the samples of one problem."""
    problems = [
        Problem(id=str(place), task="sums", question="2 + 2?", answer=gold, **problem)
        for place in range(len(completions))
    ]
    samples = [[said] if isinstance(said, str) else said for said in completions]
    return judge(problems, [[said_once(Generation(text, 7, True)) for text in texts] for texts in samples])


def said_once(generation: Generation) -> Answered:
    return Answered((Said("cot", "2 + 2?", generation),), generation.text)


def summary(accuracy: float, n: int = 100, parse_failure_rate: float = 0.0) -> dict[str, Any]:
    return asdict(Score(n, accuracy, (accuracy * (1 - accuracy) / n) ** 0.5, parse_failure_rate, 0.0, 20.0))


def test_a_row_keeps_what_was_asked_said_and_understood() -> None:
    [row] = judged("2 + 2 = 4. Therefore, the answer is 4.")
    assert (row["question"], row["gold"], row["completion"]) == (
        "2 + 2?",
        "4",
        "2 + 2 = 4. Therefore, the answer is 4.",
    )
    assert (row["predicted"], row["parsed"], row["correct"], row["solved"]) == ("4", True, True, True)
    assert row["extractor"].startswith("toolkit.answers@")


def test_a_completion_without_an_answer_is_unparsed_and_wrong() -> None:
    [row] = judged("Let me think about")
    assert (row["predicted"], row["parsed"], row["correct"]) == (None, False, False)


def test_an_answer_may_give_the_text_of_its_option() -> None:
    [row] = judged("Therefore, the answer is Cy.", gold="(B)", choices=("Ann", "Cy"), kind="choice")
    assert row["correct"]


def test_several_samples_are_judged_one_by_one_and_solved_by_majority() -> None:
    rows = judged(["The answer is 4.", "The answer is 5.", "The answer is 4.0."])
    assert [row["correct"] for row in rows] == [True, False, True]
    assert [row["solved"] for row in rows] == [True, True, True]


def test_the_standard_error_is_that_of_a_share() -> None:
    score = score_rows(judged("The answer is 4.", "The answer is 4.", "The answer is 4.", "The answer is 5."))
    assert (score.n, score.accuracy) == (4, 0.75)
    assert score.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_questions_that_are_edits_of_one_another_count_once_in_the_error() -> None:
    """Both of two pairs are right and both of two are wrong: an error of four draws, with every task's as well."""
    said = ["The answer is 4."] * 4 + ["The answer is 5."] * 4
    rows = [{**row, "pair": f"p{place // 2}"} for place, row in enumerate(judged(*said))]
    assert score_rows(rows).standard_error == pytest.approx((0.5 * 0.5 / 4) ** 0.5)
    assert score_by_task(rows)["sums"].standard_error == pytest.approx((0.5 * 0.5 / 4) ** 0.5)


def test_a_problem_counts_once_however_many_samples_it_has() -> None:
    score = score_rows(judged(["The answer is 4.", "The answer is 4."], ["The answer is 5.", "no"]))
    assert (score.n, score.accuracy, score.parse_failure_rate) == (2, 0.5, 0.25)


def test_cut_off_completions_are_counted() -> None:
    problem = Problem(id="a", task="sums", question="2 + 2?", answer="4")
    rows = judge([problem], [[said_once(Generation("4", 10, False)), said_once(Generation("4", 20, True))]])
    assert (score_rows(rows).truncated_rate, score_rows(rows).generated_tokens) == (0.5, 15.0)


def test_tasks_are_scored_apart() -> None:
    rows = judged("The answer is 4.", "The answer is 5.")
    rows[1]["task"] = "products"
    assert {task: score.accuracy for task, score in score_by_task(rows).items()} == {"products": 0.0, "sums": 1.0}


def test_the_evaluate_metric_of_the_project_agrees() -> None:
    import evaluate

    metric = evaluate.load(str(Path(__file__).parents[2] / "toolkit" / "metrics" / "answer_accuracy"))
    said = ["The answer is 4.", "The answer is 5.", "Who knows", "4"]
    score, theirs = score_rows(judged(*said)), metric.compute(predictions=said, references=["4"] * 4)
    assert theirs == {name: pytest.approx(getattr(score, name)) for name in theirs}


def test_scores_are_written_as_json(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.json", {"imitate": {"in_domain": summary(0.5)}})
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["students"]["imitate"]["in_domain"]["accuracy"] == 0.5


SCORES = {
    "untrained": {"in_domain": summary(0.0, 400, 1.0), "out_of_domain": summary(0.0, 200, 1.0)},
    "key_steps": {"in_domain": summary(0.8125, 400, 0.005), "out_of_domain": summary(0.105, 200, 0.01)},
}


def test_the_table_shows_students_against_sets() -> None:
    table = format_scores_table(SCORES)
    header, _, untrained, key_steps, _ = table.splitlines()
    assert header.split("  ")[0] == "student"
    assert untrained.split() == [
        "untrained",
        "0.0",
        "±",
        "0.0",
        "400",
        "100.0",
        "%",
        "0.0",
        "±",
        "0.0",
        "200",
        "100.0",
        "%",
    ]
    assert "81.2 ± 2.0  400     0.5 %" in key_steps
    assert len({len(line) for line in table.splitlines()[:-1]}) == 1, "columns are aligned"


def test_the_table_in_markdown_has_a_rule_and_as_many_cells_in_every_line() -> None:
    lines = format_scores_table(SCORES, markdown=True).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert {line.count("|") for line in lines} == {8}


def test_a_set_that_a_student_was_not_scored_on_stays_empty() -> None:
    scores = {**SCORES, "other": {"in_domain": summary(0.5)}}
    assert (
        format_scores_table(scores, markdown=True).splitlines()[-1] == "| other | 50.0 ± 5.0 | 100 | 0.0 % |  |  |  |"
    )
