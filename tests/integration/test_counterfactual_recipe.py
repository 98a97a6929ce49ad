"""Counterfactual distillation from problems to a published student: its dataset, its views, its pairs and its gap."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from tests.tiny_recipe import EDIT, distill

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETS = {
    "in_domain": {"split": "test"},
    "duels": {"source": "procedural", "tasks": ["duels"], "n_test": 8},
    "upsets": {"source": "procedural", "tasks": ["upsets"], "n_test": 8},
    "edited": {"source": "procedural_pairs", "tasks": ["contests"], "n_test": 6},
}


def written(folder: Path) -> Path:
    """Write the shipped recipe with few questions, a tiny student and a few steps."""
    recipe = {
        "extends": str(ROOT / "recipes" / "counterfactual.yaml"),
        "dataset": {"config": {"problems": {"n": 30, "n_test": 8}, "rationales": 2}},
        "student": {key: copy.deepcopy(EDIT["student"][key]) for key in ("from_config", "tokenizer")},
        "stages": {"train": {"training": {"max_steps": 6, "save_steps": 3, "logging_steps": 3, "warmup_steps": 1}}},
        "evaluation": {"sets": SETS, "batch_size": 8},
        "output_dir": str(folder / "outputs"),
        "hub_dir": str(folder / "hub"),
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("counterfactual")
    done = distill("train", written(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_the_report_has_pairs_and_gap_with_their_errors(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    (scores,) = folder.glob("outputs/counterfactual/*/scores.json")
    students = json.loads(scores.read_text())["students"]
    assert set(students) == {"direct", "train"}
    for sets in students.values():
        assert {name: summary["pairs"] and summary["pairs"]["pairs"] for name, summary in sets.items()} == {
            "in_domain": None,
            "duels": None,
            "upsets": None,
            "edited": 6,
        }
    for told in (printed, (scores.parent / "report.html").read_text()):
        header = next(line for line in told.splitlines() if "gap, points" in line)
        assert header.index("macro %") < header.index("edited: both right, %") < header.index("edited: flipped, %")


def test_dataset_and_student_are_published_with_cards_that_tell_of_both(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    data = folder / "hub" / "datasets" / "counterfactual-pairs-procedural" / "v1.0.0"
    student = folder / "hub" / "models" / "counterfactual-student-procedural" / "v1.0.0"
    assert "| no | yes |" in (data / "README.md").read_text()
    assert "edited: both right, %" in (student / "README.md").read_text()
    rows = load_dataset(str(data), "default", split="train", cache_dir=str(folder / "cache"))
    pairs: dict[str, list[Any]] = {}
    for row in rows:
        pairs.setdefault(row["pair_id"], []).append(row)
    assert all(sum(row["is_original"] for row in pair) <= 1 for pair in pairs.values())
    assert all(len({row["has_cf"] for row in pair}) == 1 for pair in pairs.values())
    assert any(len(pair) > 1 for pair in pairs.values())


@pytest.mark.parametrize("arm", sorted(path.stem for path in (ROOT / "recipes" / "counterfactual").glob("*.yaml")))
def test_every_arm_shows_its_views_and_leaves_no_record_out(trained: tuple[Path, str], arm: str) -> None:
    """Original or edit, one reason or several: each arm sees what its name says."""
    from toolkit.cli import open_recipe
    from toolkit.stage_views import StageViews

    folder, _ = trained
    data = folder / "hub" / "datasets" / "counterfactual-pairs-procedural" / "v1.0.0"
    rows: Any = load_dataset(str(data), "default", split="train", cache_dir=str(folder / "cache")).to_list()
    stage = open_recipe(str(ROOT / "recipes" / "counterfactual" / f"{arm}.yaml")).stages[0]
    views = StageViews(stage, rows)
    shown = [views.show(place) for place in range(len(rows))]
    assert [one.reason for one in shown] == [None] * len(rows)
    originals = sum(row["is_original"] for row in rows)
    sees_edits = "edits" in arm
    assert sum(bool(one.sequences) for one in shown) == (len(rows) if sees_edits else originals)
    reasons = sum(len(row["whys"]) for row in rows if row["is_original"])
    sequences = {
        "answer": originals,
        "cot": 2 * originals,
        "cot_k": originals + reasons,
        "cot_views": 3 * originals,
        "cot_edits": 2 * len(rows),
        "cot_edits_shuffled": 2 * len(rows),
    }
    assert sum(len(one.sequences) for one in shown) == sequences[arm]
    assert reasons > originals
