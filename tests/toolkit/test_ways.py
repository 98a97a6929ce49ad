"""Two ways to an answer: who is asked for how much, what is elected, and what is reported of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_students import tiny_llama, tiny_tokenizer
from toolkit import evaluation
from toolkit.decode_procedures import Procedure, TurnPlan
from toolkit.decoding import Decoding, Generation
from toolkit.errors import UserError
from toolkit.evaluation import EvaluationResult, evaluate_student
from toolkit.problem import Problem
from toolkit.scores import format_ways, ways_report
from toolkit.ways import Trust, Way, evaluate_ways, find_trust

COT = Procedure((TurnPlan("cot", "[cot] {question}", (("{cot.rationale}", "rationale", 1.0),)),))
POT = Procedure((TurnPlan("pot", "[pot] {question}", (("{pot.rationale}", "rationale", 1.0),), run="ans"),))
THREE = Decoding(max_new_tokens=8, samples=3, temperature=0.7, top_p=0.9)
TRUST = Trust("pot", 10, 4, {"cot": 1, "pot": 3})
Script = Callable[[str, int], str]  # from what is asked and the sample's number to what is written


def problems(*golds: int) -> list[Problem]:
    return [
        Problem(id=f"sums/{place}", task="sums", question=f"sum {place}", answer=str(gold), kind="number")
        for place, gold in enumerate(golds)
    ]


def says(answer: object) -> str:
    return f"So it is. Therefore, the answer is {answer}."


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes two ways of a student who writes by script, and notes what it is asked for."""

    def make(script: Script, other: Script | None = None) -> tuple[list[Way], list[tuple[str, int, float]]]:
        scripts = {tiny_llama(): script, tiny_llama(seed=1): other or script}
        first, second = scripts
        asked: list[tuple[str, int, float]] = []

        def write(model: Any, _: Any, rows: Any, settings: Decoding, **__: Any) -> Iterator[dict[int, Generation]]:
            asked.extend((prompt, sample, settings.temperature) for prompt, sample in rows)
            yield {
                place: Generation(scripts[model](prompt, sample), 3, True)
                for place, (prompt, sample) in enumerate(rows)
            }

        monkeypatch.setattr(evaluation, "generate_batches", write)
        tokenizer = tiny_tokenizer()
        beside = first if other is None else second
        return [Way(first, tokenizer, COT), Way(beside, tokenizer, POT)], asked

    return make


def scored(ways: list[Way], folder: Path, asked: list[Problem], settings: Decoding = THREE) -> EvaluationResult:
    path = folder / "samples.parquet"
    return evaluate_ways(ways, asked, settings, TRUST, batch_size=4, seed=0, path=path)


def test_more_answers_are_drawn_where_the_first_ones_differ_and_nowhere_else(student: Any, tmp_path: Path) -> None:
    def script(prompt: str, sample: int) -> str:
        if prompt.startswith("[cot]"):
            return says(5)
        return "ans = 5" if prompt.endswith("sum 0") else "ans = 6"

    ways, asked = student(script)
    result = scored(ways, tmp_path, problems(5, 6))

    greedy = [("[cot] sum 0", 0, 0.0), ("[cot] sum 1", 0, 0.0), ("[pot] sum 0", 1, 0.0), ("[pot] sum 1", 1, 0.0)]
    more = [("[cot] sum 1", 2, 0.7), ("[cot] sum 1", 4, 0.7), ("[pot] sum 1", 3, 0.7), ("[pot] sum 1", 5, 0.7)]
    assert asked == greedy + more
    assert [(row["id"], row["sample"], row["view"]) for row in result.rows] == [
        *(("sums/0", 0, "cot"), ("sums/0", 1, "pot")),
        *(("sums/1", sample, "pot" if sample % 2 else "cot") for sample in range(6)),
    ]
    assert [row["agreed"] for row in result.rows] == [True, True, *[False] * 6]
    assert result.score.accuracy == 1.0  # 3 against 3, and `pot` is trusted
    assert result.score.n == 2


def test_a_finished_evaluation_asks_nothing_again(student: Any, tmp_path: Path) -> None:
    ways, asked = student(lambda prompt, sample: says(sample) if prompt.startswith("[cot]") else f"ans = {sample}")
    first = scored(ways, tmp_path, problems(1, 2))
    asked.clear()

    again = scored(ways, tmp_path, problems(1, 2))

    assert asked == []
    assert again.rows == first.rows


def test_programs_that_fail_do_not_vote_and_zero_and_negative_values_do(student: Any, tmp_path: Path) -> None:
    programs = {"sum 0": "ans = 4 - 4", "sum 1": "ans = 3 - 8", "sum 2": "ans = x"}
    ways, _ = student(lambda prompt, _: says("I cannot tell") if "[cot]" in prompt else programs[prompt[6:]])

    result = scored(ways, tmp_path, problems(0, -5, 7), Decoding(max_new_tokens=8))

    assert [row["solved"] for row in result.rows if row["sample"] == 0] == [True, True, False]
    assert [(row["predicted"], row["status"]) for row in result.rows if row["view"] == "pot"] == [
        *(("0", "ok"), ("-5", "ok"), (None, "runtime")),
    ]
    assert not any(row["agreed"] for row in result.rows)  # two that say nothing do not agree


def test_a_single_way_of_programs_reads_their_values(student: Any, tmp_path: Path) -> None:
    ways, _ = student(lambda *_: "```python\nans = 2 * 4\n```")
    one = ways[1]

    result = evaluate_student(
        one.model, one.tokenizer, problems(8, 9), POT, Decoding(8), batch_size=4, seed=0, path=tmp_path / "one.parquet"
    )

    assert [(row["predicted"], row["correct"], row["agreed"]) for row in result.rows] == [
        ("8", True, None),
        ("8", False, None),
    ]
    assert result.settings["turns"][0]["run"] == "ans"
    assert "ways" not in result.summary


def test_an_ensemble_is_two_students_each_on_its_way(student: Any, tmp_path: Path) -> None:
    ways, _ = student(lambda prompt, _: says(5) if "[cot]" in prompt else "", lambda prompt, _: "ans = 5")

    result = scored(ways, tmp_path, problems(5))

    assert [row["agreed"] for row in result.rows] == [True, True]


@pytest.mark.parametrize(("right", "prefer"), [("cot", "cot"), ("pot", "pot"), ("neither", "cot")])
def test_who_wins_a_tie_is_who_was_right_where_the_ways_differed(
    student: Any, tmp_path: Path, right: str, prefer: str
) -> None:
    def script(prompt: str, _: int) -> str:
        gold = 9 if prompt.endswith("sum 0") else 3  # on the first question both are right, which says nothing
        way = prompt[1:4]
        value = gold if gold == 9 or way == right else 4 + (way == "pot")
        return says(value) if way == "cot" else f"ans = {value}"

    ways, asked = student(script)
    trust = find_trust(ways, problems(9, 3, 3), THREE, batch_size=4, seed=0, path=tmp_path / "development.parquet")

    figures = {"cot": 0, "pot": 0, **({right: 2} if right != "neither" else {})}
    assert trust == Trust(prefer, 3, 2, figures)
    assert {temperature for _, _, temperature in asked} == {0.0}


def test_there_have_to_be_questions_to_find_out_on(student: Any, tmp_path: Path) -> None:
    ways, _ = student(lambda *_: "")
    with pytest.raises(UserError, match=r"evaluation\.development: there are no questions but those of the sets"):
        find_trust(ways, [], THREE, batch_size=4, seed=0, path=tmp_path / "development.parquet")
    with pytest.raises(UserError, match="there are no problems"):
        scored(ways, tmp_path, [])


def row(
    problem: str, sample: int, correct: bool, solved: bool, agreed: bool, status: str | None = None
) -> dict[str, Any]:
    view = "pot" if sample % 2 else "cot"
    facts = {"id": problem, "sample": sample, "view": view, "correct": correct, "solved": solved}
    return {**facts, "agreed": agreed, "status": status if view == "pot" else None}


def test_the_report_counts_first_answers_and_who_was_elected() -> None:
    rows = [
        *(row("a", 0, True, True, True), row("a", 1, True, True, True, "ok")),
        *(row("b", 0, False, False, True), row("b", 1, False, False, True, "ok")),
        *(row("c", 0, True, True, False), row("c", 1, False, True, False, "runtime")),
        *(row("c", 2, False, True, False), row("c", 3, True, True, False, "ok")),  # drawn later, counted nowhere
        *(row("d", 0, False, True, False), row("d", 1, True, True, False, "ok")),
    ]

    report = ways_report(rows)

    assert {name: (share["share"], share["n"]) for name, share in report.items()} == {
        "accuracy of cot": (0.5, 4),
        "accuracy of pot": (0.5, 4),
        "execution rate of pot": (0.75, 4),
        "agreement rate": (0.5, 4),
        "accuracy given agreement": (0.5, 2),
        "accuracy of the vote": (0.75, 4),
    }
    assert report["accuracy given agreement"]["standard_error"] == math.sqrt(0.25 / 2)


def test_few_questions_come_with_a_warning() -> None:
    def told(n: int) -> str:
        rows = [row(str(i), way, i % 5 > 0, i % 5 > 0, True, "ok") for i in range(n) for way in (0, 1)]
        return format_ways({"mixed": {"svamp": {"ways": ways_report(rows)}}, "other": {"svamp": {}}})

    # sqrt(0.8 * 0.2 / 200) is 2.83 points, and 1.96 sqrt(2) times that 7.8.
    assert "80.0 ± 2.8 %  of 200" in told(200)
    assert "200 questions are few: two such figures that differ by less than 8 points" in told(200)
    assert "few" not in told(1000)
    assert "other" not in told(200)


def test_a_report_without_any_agreement_leaves_its_accuracy_out() -> None:
    report = ways_report([row("a", 0, True, True, False), row("a", 1, False, True, False, "timeout")])
    assert report["accuracy given agreement"] == {"share": None, "n": 0, "standard_error": None}
    assert "given agreement" not in format_ways({"mixed": {"set": {"ways": report}}})
