"""What the commands do with a recipe: build its dataset, train its students, score them, publish the last one.

Every step finds what an earlier process finished and goes on from there; running a command twice does nothing twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import hub
from toolkit.disk_faults import writing
from toolkit.errors import UserError
from toolkit.hub_revisions import base_commit, pinned_arguments, revision_of
from toolkit.recipe_dataset import building_arguments, built_from, dataset_folder, load_split, store_path
from toolkit.reporting import check_free, check_padding
from toolkit.results import conclude, evaluation_sets, questions_digest
from toolkit.runs import Run, rows_digest, texts_digest
from toolkit.scoring import check_questions

if TYPE_CHECKING:
    from accelerate import PartialState
    from transformers import PreTrainedTokenizerBase

    from dataset_builders.building import Engine
    from toolkit.hub import OtherCard
    from toolkit.recipe import Recipe, Student
    from toolkit.runs import TrainedStage


def build(
    recipe: Recipe,
    dry_run: bool = False,
    engine: Engine = "local",
    other_card: OtherCard = "refuse",
    ask: bool = True,
) -> None:
    """Ask the teacher for what is missing and publish the dataset.

    Args:
        recipe: The recipe.
        dry_run: Say what would be asked and written, and do neither.
        engine: Where the teacher is asked and mathematics judged.
        other_card: What to do where the revision exists with the same records and another card, as of `hub.publish`.
        ask: Whether the teacher may be asked for what the store lacks.

    Raises:
        UserError: The recipe names no builder, the input is bad, or the teacher fails.
    """
    from dataset_builders.building import build_dataset, settings_digest
    from dataset_builders.estimate import estimate, told

    dataset = recipe.dataset
    if dataset.builder is None:
        raise UserError(f"dataset.builder: missing; {dataset.repo_id} is a dataset that somebody else has published")
    folder, store = dataset_folder(recipe), store_path(recipe)
    if dry_run:
        print(told(estimate(dataset.builder, dataset.config, store), whole=not sys.stdout.isatty()))
        print(f"{'would write':<13} {folder}" + (", which exists" if folder.exists() else ""))
        return
    with writing(folder, f"dataset {dataset.repo_id}"):
        store.parent.mkdir(parents=True, exist_ok=True)
        report = build_dataset(
            dataset.builder,
            dataset.config,
            store,
            **building_arguments(recipe),
            other_card=other_card,
            engine=engine,
            ask=ask,
        )
        mark = built_from(recipe)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(settings_digest(dataset.builder, dataset.config), encoding="utf-8")
    print(report.summary())


def training_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the dataset's training records, building it first where it is missing.

    A revision that was built from other settings or by other code is built again, which asks for nothing that the
    store has, and is refused where other records come of it: a revision never changes.

    Raises:
        UserError: The dataset cannot be built or loaded, or has no training records.
    """
    process = _this_process()
    if recipe.dataset.builder is not None:
        if process.is_main_process and not is_built(recipe):
            if recipe.student is not None and recipe.student.model_name_or_path:
                check_loaded(recipe)  # before a teacher is paid for what cannot be learnt
            build(recipe, other_card="keep")
        process.wait_for_everyone()
    return list(load_split(recipe, "default", "train"))


def built_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the dataset's training records as they lie there, for a command that asks no teacher and writes nothing.

    Raises:
        UserError: They are not built, or from other settings or by other code; says what to run. Or they cannot be
            loaded.
    """
    if recipe.dataset.builder is not None and not is_built(recipe):
        folder = dataset_folder(recipe)
        why = (
            "was built from other settings, or by other code, than it would be now"
            if folder.exists()
            else "is not built"
        )
        raise UserError(
            f"dataset {recipe.dataset.repo_id} at {recipe.dataset.revision} {why} ({folder}); run "
            f"`distill build {recipe.words}` first"
        )
    return list(load_split(recipe, "default", "train"))


def _this_process() -> PartialState:
    """Return this process's place among those of the run.

    Without an accelerator several processes find each other only when told that they are to use the CPU: otherwise
    each would take itself for the only one, and all would train into the same folders.
    """
    import torch
    from accelerate import PartialState

    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # for transformers, which asks again before it trains
    return PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))


def is_built(recipe: Recipe) -> bool:
    """Whether the recipe's dataset lies in the local hub as these settings and this code build it."""
    from dataset_builders.building import settings_digest

    assert recipe.dataset.builder is not None
    mark = built_from(recipe)
    if not dataset_folder(recipe).exists() or not mark.exists():
        return False
    return mark.read_text(encoding="utf-8") == settings_digest(recipe.dataset.builder, recipe.dataset.config)


def open_run(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> Run:
    """Return the run of a recipe on its training records.

    Raises:
        UserError: An evaluation set cannot be loaded, or the student's commit is not known.
    """
    made = recipe.student is not None and not recipe.student.model_name_or_path
    texts = texts_digest(_texts(recipe, rows)) if made else ""
    return Run(recipe, rows_digest(rows), texts, questions_digest(recipe))


def student_tokenizer(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> PreTrainedTokenizerBase:
    """Return the tokenizer that the recipe's student has, or will have once it is made.

    Raises:
        UserError: The recipe has no student.
    """
    from toolkit.starting import tokenizer_of

    student = _student(recipe)
    return tokenizer_of(student, pinned_arguments(student), lambda: _texts(recipe, rows))


def check_loaded(recipe: Recipe) -> None:
    """Check what a loaded student's tokenizer makes of the recipe's templates, which takes no records.

    Raises:
        UserError: As of `toolkit.seams.check_views`, or the tokenizer cannot be had.
    """
    from toolkit.seams import check_views

    check_views(recipe, student_tokenizer(recipe, ()))


def _student(recipe: Recipe) -> Student:
    if recipe.student is None or not recipe.stages:
        raise UserError(f"recipe {recipe.recipe.name!r} has no student or no stages: there is nothing to train")
    return recipe.student


def _texts(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the texts that a tokenizer is trained on: the questions and chains of all records, wrong ones too.

    They are written as the config `sft` has the right ones. So students of one dataset have one vocabulary, whatever
    their recipes show of it, and can be compared token by token. A dataset without a builder, somebody else's, gives
    what the recipe's views show.
    """
    from toolkit.stage_views import StageViews

    if recipe.dataset.builder is not None:
        from dataset_builders import load_builder

        builder = load_builder(recipe.dataset.builder)
        return [text["prompt"] + text["completion"] for row in rows for text in builder.sft_rows(row)]
    shown = [StageViews(stage, rows) for stage in recipe.stages]
    return [
        view.prompt + "".join(segment.text for segment in view.target)
        for index in range(len(rows))
        for views in shown
        for _, view in views.show(index).sequences
    ]


def make_start(recipe: Recipe, run: Run, rows: Sequence[dict[str, Any]]) -> str:
    """Return the student that training starts from, made now where it is not one that is loaded as it is."""
    from accelerate import PartialState

    from toolkit.folder_lock import agreed, owned
    from toolkit.students import is_whole

    student = _student(recipe)
    if not run.makes_its_start:
        assert student.model_name_or_path
        return student.model_name_or_path
    process = PartialState()
    if not agreed(is_whole(run.start)):
        with writing(run.start, "the student that training starts from"), owned(run.start, "is made"):
            if process.is_main_process and not is_whole(run.start):
                _write_start(recipe, run, rows)
            process.wait_for_everyone()
    return str(run.start)


def _write_start(recipe: Recipe, run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Make the student that training starts from, in a folder that is held."""
    from toolkit.adapters import NEW_TOKENS
    from toolkit.starting import model_of, new_token_ids
    from toolkit.students import save_atomically

    student = _student(recipe)
    tokenizer = student_tokenizer(recipe, rows)
    model = model_of(student, pinned_arguments(student), tokenizer)
    facts: dict[str, Any] = {"stage": "start", "start_commit": base_commit(student), "log": []}
    save_atomically(run.start, model, tokenizer, facts | {NEW_TOKENS: new_token_ids(student, tokenizer)})


@dataclass(frozen=True)
class Trained:
    """A recipe's students, all of them trained.

    Attributes:
        run: Where the run's results go.
        rows: Training records.
        start: Student that training started from.
        students: Stages of each student by name; the last one is the recipe's own.
        outcomes: Facts of every stage (`toolkit.stages.train_stage`) by its folder.
    """

    run: Run
    rows: Sequence[dict[str, Any]]
    start: str
    students: Mapping[str, Sequence[TrainedStage]]
    outcomes: Mapping[Path, Mapping[str, Any]]


def train(recipe: Recipe) -> None:
    """Train every student of the recipe, score them, write cards and report, and publish the last one.

    Raises:
        UserError: Anything in the recipe, the data or the teacher that stands in the way.
    """
    from accelerate import PartialState

    from toolkit.folder_lock import owned

    trained = train_students(recipe)
    with writing(trained.run.folder, "scores and report"), owned(trained.run.folder, "is written"):
        if PartialState().is_main_process:
            conclude(recipe, trained.run, trained.students, trained.start, trained.rows)


def train_students(recipe: Recipe) -> Trained:
    """Train every student of the recipe, or find them trained.

    Raises:
        UserError: As of `train`; what scoring and publishing would need is checked before anything is trained.
    """
    from accelerate import PartialState

    from toolkit.seams import check_views
    from toolkit.students import load_tokenizer
    from toolkit.training_checks import check_training

    check_training(recipe)  # before a teacher is asked, a model downloaded or a dataset built
    rows = training_rows(recipe)
    run = open_run(recipe, rows)
    students = run.students
    if PartialState().is_main_process:
        check_free(recipe, run)
    start = make_start(recipe, run, rows)
    check_padding(recipe, start)
    check_views(recipe, load_tokenizer(start, revision_of(recipe, start)))
    if recipe.evaluation is not None and PartialState().is_main_process:
        check_questions(recipe, students, start, evaluation_sets(recipe)[0], revision_of(recipe, start))
    outcomes: dict[Path, dict[str, Any]] = {}
    for name, chain in students.items():
        for link in chain:
            if link.folder not in outcomes:
                outcomes[link.folder] = _train_link(recipe, name, link, rows)
    return Trained(run, rows, start, students, outcomes)


def _train_link(recipe: Recipe, name: str, link: TrainedStage, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from accelerate import PartialState

    from toolkit.stages import train_stage

    student = _student(recipe)
    arguments = pinned_arguments(student)
    if link.start != student.model_name_or_path:
        arguments.pop("model_revision", None)  # of the model the first stage starts from, not of what came of it
    say = print if PartialState().is_main_process else (lambda *_: None)
    known = link.student.exists()
    say(f"stage {link.stage.name} of {name}: {'trained already, ' if known else ''}{link.folder}")
    facts = train_stage(link.stage, rows, link.start, link.folder, arguments, student.prompt_format)
    dropped, apart = facts["encoding"]["dropped"], facts["encoding"]["held_out"]
    if not known:
        since = f" (resumed at {facts['resumed_from_step']})" if facts["resumed_from_step"] else ""
        say(
            f"stage {link.stage.name} of {name}: {facts['steps']} steps{since} in {facts['seconds']:.0f} s, "
            f"{facts['encoding']['sequences']} sequences, {len(dropped)} records left out"
            + (f", {apart['records']} held out ({len(apart['dropped'])} of them left out)" if apart else "")
        )
    return facts


def published_student(recipe: Recipe) -> Path:
    """Return the folder of the recipe's student in the local hub, put there now where it is trained and not there yet.

    Raises:
        UserError: A student is not trained yet, is not fit to be published, or its revision is taken.
    """
    if recipe.publish is None or recipe.evaluation is None:
        raise UserError("publish or evaluation: missing; a student is published with its scores")
    folder = hub.folder(recipe.hub_dir, "model", recipe.publish.repo_id, recipe.publish.revision)
    if not folder.exists():
        evaluate(recipe)
    check_free(recipe, open_run(recipe, training_rows(recipe)))
    return folder


def evaluate(recipe: Recipe) -> None:
    """Score the recipe's students again from what is trained; nothing is trained.

    Raises:
        UserError: A student is not trained yet, or there is nothing to score on.
    """
    from toolkit.folder_lock import owned

    first = f"run `accelerate launch toolkit/train.py {recipe.words}` first"
    if recipe.dataset.builder is not None and not dataset_folder(recipe).exists():
        raise UserError(f"nothing is trained: there is not even a dataset ({dataset_folder(recipe)}); {first}")
    rows = training_rows(recipe)
    run = open_run(recipe, rows)
    students = run.students
    for name, chain in students.items():
        for link in chain:
            if not link.student.exists():
                raise UserError(
                    f"stage {link.stage.name} of {name} is not trained ({link.student} is not there): {first}"
                )
    check_free(recipe, run)  # before anything is decoded
    start = make_start(recipe, run, rows)
    with writing(run.folder, "scores and report"), owned(run.folder, "is written"):
        conclude(recipe, run, students, start, rows)
