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
from toolkit.scores import (
    Row,
    Score,
    format_scores_table,
    format_ways,
    judge,
    score_by_task,
    score_rows,
    ways_report,
    write_scores,
)


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


def test_answers_are_compared_as_the_problem_says() -> None:
    [row] = judged("The answer is 4.0.", gold="4", kind="text")
    assert (row["kind"], row["correct"]) == ("text", False)
    [row] = judged("The answer is 4.0.", gold="4")
    assert (row["kind"], row["correct"]) == ("number", True)


def test_a_gold_may_be_the_text_of_an_option_too() -> None:
    [row] = judged("Therefore, the answer is (B).", gold="Cy", choices=("Ann", "Cy"), kind="choice")
    assert (row["voted"], row["correct"], row["solved"]) == ("(B)", True, True)


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


def in_ways(*ways: tuple[str, str, str | None]) -> list[Answered]:
    """Return answers to one problem: (way, what was said, what became of its program)."""
    return [Answered((Said(way, "2 + 2?", Generation(text, 3, True)),), text, status) for way, text, status in ways]


def test_a_row_has_everything_that_was_said_in_all_turns() -> None:
    turns = (
        Said("cot", "2 + 2?", Generation("We add", 7, False)),
        Said("keys", "2 + 2? We add", Generation("4", 2, True)),
    )
    problem = Problem(id="p", task="sums", question="2 + 2?", answer="4", pair="p/1")
    once = said_once(Generation("It is 5.", 1, True))
    two_turns, one_turn = judge([problem], [[Answered(turns, "The answer is 4."), once]])
    assert two_turns | {"extractor": ""} == {
        "id": "p",
        "task": "sums",
        "question": "2 + 2?",
        "gold": "4",
        "kind": "number",
        "view": "cot",
        "prompt": "2 + 2? We add",
        "pair": "p/1",
        "sample": 0,
        "completion": "4",
        "status": None,
        "predicted": "4",
        "parsed": True,
        "correct": True,
        "voted": "4",
        "solved": True,
        "agreed": False,
        "tokens": 9,
        "stopped": False,
        "extractor": "",
        "turns": [
            {"view": "cot", "prompt": "2 + 2?", "completion": "We add", "tokens": 7, "stopped": False},
            {"view": "keys", "prompt": "2 + 2? We add", "completion": "4", "tokens": 2, "stopped": True},
        ],
    } | {"agreed": None}
    assert (one_turn["sample"], one_turn["turns"], one_turn["predicted"], one_turn["voted"]) == (1, [], "5", "4")


def test_of_several_ways_the_first_answers_agree_or_not_and_all_of_them_vote() -> None:
    problem = Problem(id="p", task="sums", question="2 + 2?", answer="4")
    rows = judge(
        [problem], [in_ways(("cot", "4", None), ("pot", "5", "ok"), ("pot", "5", "ok"), ("cot", "4", None))], "pot"
    )
    assert {(row["agreed"], row["voted"], row["solved"]) for row in rows} == {(False, "5", False)}
    assert [row["correct"] for row in rows] == [True, False, False, True]
    (first, *_) = judge([problem], [in_ways(("cot", "4", None), ("pot", "4.0", "ok"), ("pot", "5", "ok"))])
    assert (first["agreed"], first["voted"], first["status"]) == (True, "4", None)


def test_options_by_their_text_are_one_answer_in_a_vote_of_ways() -> None:
    problem = Problem("p", "t", "Who?", "(B)", kind="choice", choices=("Ann", "Cy"))
    (first, *_) = judge([problem], [in_ways(("cot", "Cy", None), ("pot", "(B)", "ok"))])
    assert (first["agreed"], first["solved"]) == (True, True)
    said = [said_once(Generation(text, 1, True)) for text in ("The answer is Cy.", "The answer is (B).", "(A)", "(A)")]
    rows = judge([problem], [said[:3]])
    assert {row["solved"] for row in rows} == {True}


def test_what_ways_did_each_and_together() -> None:
    problems = [Problem(str(n), "sums", "2 + 2?", "4") for n in range(4)]
    rows = judge(
        problems,
        [
            in_ways(
                ("cot", "4", None), ("pot", "4", "ok"), ("pot", "9", "ok")
            ),  # a second program counts in the vote alone
            in_ways(("cot", "4", None), ("pot", "5", "error"), ("pot", "4", "ok")),
            in_ways(("cot", "5", None), ("pot", "5", "ok"), ("pot", "5", "ok")),
            in_ways(("cot", "5", None), ("pot", "no", "error"), ("pot", "4", "ok")),
        ],
        "cot",
    )
    report = ways_report(rows)
    assert {name: (share["share"], share["n"]) for name, share in report.items()} == {
        "accuracy of cot": (0.5, 4),
        "accuracy of pot": (0.25, 4),
        "execution rate of pot": (0.5, 4),
        "agreement rate": (0.5, 4),
        "accuracy given agreement": (0.5, 2),
        "accuracy of the vote": (0.5, 4),
    }
    assert report["accuracy of pot"]["standard_error"] == pytest.approx((0.25 * 0.75 / 4) ** 0.5)
    assert list(report) == [*list(report)[:2], "execution rate of pot", *list(report)[3:]]


def test_ways_that_never_agree_have_no_accuracy_given_agreement() -> None:
    report = ways_report(
        judge([Problem("p", "sums", "2 + 2?", "4")], [in_ways(("cot", "4", None), ("pot", "5", "ok"))])
    )
    assert report["accuracy given agreement"] == {"share": None, "n": 0, "standard_error": None}
    shown = format_ways({"mixed": {"in_domain": {"ways": report}}, "other": {"in_domain": summary(0.5)}})
    assert shown.splitlines() == [
        "mixed on in_domain",
        "  accuracy of cot            100.0 ± 0.0 %  of 1",
        "  accuracy of pot              0.0 ± 0.0 %  of 1",
        "  execution rate of pot      100.0 ± 0.0 %  of 1",
        "  agreement rate               0.0 ± 0.0 %  of 1",
        "  accuracy of the vote       100.0 ± 0.0 %  of 1",  # of two answers with a vote each, the smaller one
        "  1 questions are few: two such figures that differ by less than 0 points",
        "  may well be the same",
    ]


@pytest.mark.parametrize(("n", "error", "few"), [(499, 0.02, True), (500, 0.02, False)])
def test_of_few_questions_it_is_told_what_they_cannot_tell_apart(n: int, error: float, few: bool) -> None:
    share = {"share": 0.4567, "n": n, "standard_error": error}
    shown = format_ways({"s": {"test": {"ways": {"accuracy of the vote": share}}}})
    assert f"accuracy of the vote        45.7 ± 2.0 %  of {n}" in shown
    # 1.96 * sqrt(2) * 2 points
    assert (f"{n} questions are few: two such figures that differ by less than 6 points" in shown) is few


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
    write_scores(tmp_path / "scores.json", {"café": {}})
    assert (tmp_path / "scores.json").read_text() == '{\n "students": {\n  "café": {}\n }\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


SCORES = {
    "untrained": {"in_domain": summary(0.0, 400, 1.0), "out_of_domain": summary(0.0, 200, 1.0)},
    "key_steps": {"in_domain": summary(0.8125, 400, 0.005), "out_of_domain": summary(0.105, 200, 0.01)},
}


def test_the_table_shows_students_against_sets() -> None:
    table = format_scores_table(SCORES)
    header, _, untrained, key_steps, _, _ = table.splitlines()
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
    assert len({len(line) for line in table.splitlines()[:-2]}) == 1, "columns are aligned"


def test_the_table_in_markdown_has_a_rule_and_as_many_cells_in_every_line() -> None:
    lines = format_scores_table(SCORES, markdown=True).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert {line.count("|") for line in lines} == {8}


def test_a_set_that_a_student_was_not_scored_on_stays_empty() -> None:
    scores = {**SCORES, "other": {"in_domain": summary(0.5)}}
    assert (
        format_scores_table(scores, markdown=True).splitlines()[-1] == "| other | 50.0 ± 5.0 | 100 | 0.0 % |  |  |  |"
    )
