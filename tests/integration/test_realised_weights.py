"""The weight that a recipe states for a view is the one that training gives it, though steps may lack the view.

`python -m tests.integration.test_realised_weights` prints stated against realised for every recipe with several views.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.records import TRAINING, saved_student
from tests.tiny_students import tiny_tokenizer
from toolkit.cli import open_recipe
from toolkit.encoding import encode
from toolkit.pipeline import training_rows
from toolkit.recipe import Stage
from toolkit.stages import make_trainer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ("dataset.config.problems.n=24", "dataset.config.problems.n_test=4", "references=!replace {}")
BATCHES = (2, 8)
LONGEST = 8192


def several_views() -> list[str]:
    """Return the recipes that reduce several views apart, as paths below `recipes/`, without their twins at scale."""
    found = []
    for path in sorted((ROOT / "recipes").glob("*.yaml")) + sorted(
        (ROOT / "recipes" / "counterfactual").glob("*.yaml")
    ):
        for stage in open_recipe(str(path)).stages:
            if stage.reduction.by != "token" and sum(bool(view.coefficient) for view in stage.views.values()) > 1:
                found.append(str(path.relative_to(ROOT / "recipes")))
    return found


def data_of(name: str, folder: Path) -> tuple[Stage, Sequence[Any]]:
    """Return the stage of a recipe that has several views, and records of it that make whole batches."""
    # The teacher of soft targets is a student that has to be trained first; they weigh what the tokens weigh.
    source = name.replace("fu_distribution_match", "fu_sample_match")
    places = (f"hub_dir={folder / 'hub'}", f"output_dir={folder / 'out'}")
    rows = training_rows(open_recipe(str(ROOT / "recipes" / source), [*SMALL, *places]))
    stage = open_recipe(str(ROOT / "recipes" / name)).stages[-1]
    views = {
        view: shown.model_copy(
            update={"target": [segment.model_copy(update={"soft_targets": None}) for segment in shown.target]}
        )
        for view, shown in stage.views.items()
    }
    stage = stage.model_copy(update={"views": views})
    # A last step that is smaller than the others would count as much as they do.
    for end in range(len(rows), 0, -1):
        encoded, _ = encode(tiny_tokenizer(), rows[:end], stage, LONGEST)
        if len(encoded["views"]) % max(BATCHES) == 0:
            return stage, rows[:end]
    raise AssertionError(f"no number of records of {name} makes whole batches")


def stated(stage: Stage, dataset: Any) -> dict[str, float]:
    """Return each view's coefficient, times the share of its target that weighs where key steps alone do."""
    weights = {}
    for index, (name, view) in enumerate(stage.views.items()):
        if view.coefficient:
            weights[name] = view.coefficient
            if view.token_weights == "key_steps":
                rows = [row for row in dataset if row["views"][0] == index]
                weights[name] = sum(sum(row["weights"]) for row in rows) / len(rows)
    return weights


def realised(trainer: Any) -> dict[str, float]:
    """Return the sum of each view's token weights over its denominator, as a mean over the steps of an epoch."""
    totals = torch.zeros(len(trainer.view_names), dtype=torch.float64)
    loader = trainer.get_train_dataloader()
    for batch in loader:
        divided_by = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
        weights = torch.zeros_like(totals).index_add(
            0, batch["views"].flatten().long(), batch["weights"].flatten().double()
        )
        totals += weights / torch.where(divided_by == 0, 1.0, divided_by)
    return {name: (total / len(loader)).item() for name, total in zip(trainer.view_names, totals, strict=True)}


def table(name: str, student: str, folder: Path) -> dict[str, tuple[float, ...]]:
    """Return for each view of a recipe its stated weight, and the realised one at each size of a batch."""
    stage, rows = data_of(name, folder)
    columns: list[dict[str, float]] = []
    for batch in BATCHES:
        plain = TRAINING | {"per_device_train_batch_size": batch, "max_length": LONGEST}
        of_batch = stage.model_copy(update={"training": plain, "validation": None})
        trainer, _ = make_trainer(of_batch, rows, student, folder / "trainer", {}, "plain")
        columns = columns or [stated(stage, trainer.train_dataset)]
        columns.append(realised(trainer))
    return {view: tuple(column[view] for column in columns) for view in columns[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_student(tmp_path_factory.mktemp("student"))


@pytest.mark.parametrize("name", several_views())
def test_a_views_weight_is_the_stated_one(name: str, student: str, folder: Path) -> None:
    weights = table(name, student, folder)
    assert len(weights) > 1
    for view, (expected, *found) in weights.items():
        assert found == pytest.approx([expected] * len(BATCHES), rel=0.01), view


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        student = saved_student(Path(folder) / "student")
        print(f"{'recipe':<46}{'view':<20}{'stated':>9}" + "".join(f"{f'batch {batch}':>9}" for batch in BATCHES))
        for name in sys.argv[1:] or several_views():
            for view, weights in table(name, student, Path(folder)).items():
                print(f"{name:<46}{view:<20}" + "".join(f"{weight:>9.4f}" for weight in weights))
