"""Mixed Distillation from problems to a published student and its report, with students that learn next to nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from tests.tiny_recipe import EDIT, ROOT
from toolkit import cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the recipe as it stands, made small; return the folder of all it wrote."""
    folder = tmp_path_factory.mktemp("mixed")
    small = {
        "extends": str(ROOT / "recipes" / "mixed" / "ensemble.yaml"),
        "recipe": {"name": "mixed_small", "version": 1},
        "dataset": {"config": {"problems": {"n": 24, "n_test": 6}}},
        "student": EDIT["student"],
        "stages": {"train": {"training": {"max_steps": 2, "use_cpu": True, "warmup_steps": 0}}},
        "decode": {"max_new_tokens": 6, "beside": {"max_new_tokens": 6}},
        "references": {
            "cot_only": {"decode": {"max_new_tokens": 6}},
            "pot_only": {"decode": {"max_new_tokens": 6}},
            "ensemble": {"decode": {"max_new_tokens": 6, "beside": {"max_new_tokens": 6}}},
        },
        "evaluation": {"n": 4, "development": {"n_test": 5}},
        "output_dir": str(folder / "runs"),
        "hub_dir": str(folder / "hub"),
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    assert cli.main(["train", str(folder / "small.yaml")]) == 0
    return folder


def scores(ran: Path) -> dict[str, Any]:
    (path,) = (ran / "runs").rglob("scores.json")
    found: dict[str, Any] = json.loads(path.read_text())["students"]
    return found


def test_the_four_students_are_scored_and_two_of_them_by_a_vote(ran: Path) -> None:
    found = scores(ran)
    assert list(found) == ["cot_only", "pot_only", "ensemble", "train"]
    assert {name for name, sets in found.items() if "ways" in sets["in_domain"]} == {"ensemble", "train"}
    report = found["train"]["in_domain"]["ways"]
    assert list(report) == [
        *("accuracy of cot", "accuracy of pot", "execution rate of pot", "agreement rate", "accuracy given agreement"),
        "accuracy of the vote",
    ]
    assert report["accuracy of the vote"]["share"] == found["train"]["in_domain"]["accuracy"]
    trust = found["train"]["in_domain"]["settings"]["trust"]
    assert trust["prefer"] in ("cot", "pot")
    assert trust["n"] == 5


def test_the_ensemble_gives_the_answers_of_the_two_it_is_made_of(ran: Path) -> None:
    (samples,) = (ran / "runs").rglob("samples")

    def first(student: str, view: str) -> list[tuple[str, str]]:
        rows = parquet.read_table(samples / f"{student}-in_domain.parquet").to_pylist()
        return [(row["id"], row["completion"]) for row in rows if row["view"] == view and row["sample"] < 2]

    assert first("ensemble", "cot") == first("cot_only", "cot")
    assert first("ensemble", "pot") == first("pot_only", "pot")


def test_the_card_and_the_report_tell_of_both_ways(ran: Path) -> None:
    (student,) = (ran / "hub" / "models").glob("*/*/README.md")
    (report,) = (ran / "runs").rglob("report.html")
    for text in (student.read_text(), report.read_text()):
        assert "accuracy of the vote" in text
        assert "execution rate of pot" in text
        assert "4 questions are few" in text
    assert "The answers are put to the vote (`toolkit.votes@" in student.read_text()


def test_the_dataset_is_published_with_its_card(ran: Path) -> None:
    (card,) = (ran / "hub" / "datasets").glob("*/*/README.md")
    text = card.read_text()
    assert "| pot | a program for every question, which is run |" in text
    assert "Therefore, the answer is" not in text.partition("`pot`:")[2].partition("```\n")[0]
