"""`distill card`: the cards of a recipe's dataset and student as publishing would write them, published nowhere.

They are made from what there is: nobody is asked for an answer, nothing is trained, and no student answers a question.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import hub
from toolkit.errors import UserError
from toolkit.recipe_dataset import building_arguments, dataset_folder, load_split, store_path

if TYPE_CHECKING:
    from toolkit.recipe import Recipe
    from toolkit.runs import Run, TrainedStage


def render_cards(recipe: Recipe, output: Path | None) -> None:
    """Render the card of the recipe's dataset and, where it is trained and scored, that of its student.

    Args:
        recipe: The recipe.
        output: Folder that gets `dataset/` and `student/`; `cards` in the recipe's folder of runs where None.

    Raises:
        UserError: There is neither, or what is there cannot be read.
    """
    output = output or Path(recipe.output_dir) / recipe.recipe.name / "cards"
    told = []
    if recipe.dataset.builder is None:
        told.append(
            f"dataset   no card of ours: {recipe.dataset.repo_id} is a dataset that somebody else has published"
        )
    else:
        told.append(f"dataset   {_dataset_card(recipe, output / 'dataset')}")
    missing = _student_card(recipe, output / "student")
    told.append(f"student   {missing or output / 'student' / hub.CARD}")
    print("\n".join(told))


def _dataset_card(recipe: Recipe, folder: Path) -> Path:
    """Write the dataset's card and what lies beside it; returns the card's file.

    Raises:
        UserError: Answers are missing.
    """
    from dataset_builders.building import draft_dataset

    dataset, store = recipe.dataset, store_path(recipe)
    assert dataset.builder is not None
    if dataset.config.teacher is not None and not store.exists():
        raise UserError(f"no answer of the teacher is there yet ({store}); run `distill build {recipe.words}` first")
    draft = draft_dataset(
        dataset.builder,
        dataset.config,
        store,
        **building_arguments(recipe),
        ask=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    hub.write_dataset_card(
        folder / hub.CARD, recipe.hub_dir, dataset.repo_id, dataset.revision, draft.tables, draft.card.text
    )
    draft.card.write_beside(folder)
    return folder / hub.CARD


def _student_card(recipe: Recipe, folder: Path) -> str | None:
    """Write the student's card and what lies beside it; returns why there is none, where there is none."""
    from toolkit.pipeline import make_start, open_run
    from toolkit.results import complete, tell

    if recipe.evaluation is None or not recipe.stages:
        return "no card: the recipe has no stages, or no section `evaluation`"
    if recipe.dataset.builder is not None and not dataset_folder(recipe).exists():
        return f"no card yet: its dataset is not built; run `accelerate launch toolkit/train.py {recipe.words}`"
    rows = list(load_split(recipe, "default", "train"))
    run = open_run(recipe, rows)
    students = run.students
    if not all(link.student.exists() for chain in students.values() for link in chain):
        return f"no card yet: it is not trained; run `accelerate launch toolkit/train.py {recipe.words}`"
    if not _is_scored(recipe, run, students):
        return f"no card yet: it is not scored; run `distill evaluate {recipe.words}`"
    told = tell(recipe, run, students, make_start(recipe, run, rows))
    folder.mkdir(parents=True, exist_ok=True)
    complete(recipe, run, told, folder)
    if recipe.publish is not None:
        hub.keep_what_people_wrote(
            folder / hub.CARD, recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision
        )
    return None


def _is_scored(recipe: Recipe, run: Run, students: dict[str, list[TrainedStage]]) -> bool:
    """Whether every student has a score on every set."""
    file = run.folder / "scores.json"
    assert recipe.evaluation is not None
    if not file.exists():
        return False
    scores = json.loads(file.read_text())["students"]
    return all(name in scores and recipe.evaluation.sets.keys() <= scores[name].keys() for name in students)
