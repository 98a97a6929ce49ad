"""`distill compare`: several recipes, each with several seeds, trained one after the other and shown on one page.

Runs are those of `distill train` with overrides, so they are resumed, and found again, like any other. What the
figures mean is `comparison`'s and `significance`'s business, how they look is `comparison_page`'s.
"""

from __future__ import annotations

import gc
import os
import re
import shlex
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.disk_faults import writing
from toolkit.errors import UserError, nearest
from toolkit.recipe_faults import Fault, Place, RecipeFaults

if TYPE_CHECKING:
    from toolkit.comparison import ArmRun
    from toolkit.problem import Problem
    from toolkit.recipe import Recipe, Student
    from toolkit.token_budget import StageLength

Load = Callable[[str, Sequence[str]], "Recipe"]

# Only a recipe's own student takes part, and nobody else gets it.
_ALONE = ("references=!replace {}", "publish=null")
_SEED = re.compile(r"(student\.seed|stages\W.+\.training\.(data_)?seed)=")


@dataclass(frozen=True)
class Order:
    """What is to be compared, as the command line says it.

    Attributes:
        files: Recipes.
        overrides: `KEY=VALUE`, for all of them.
        seeds: Each recipe is trained once with each.
        baseline: Name of the recipe that the others are tested against; the first one where it is None.
        tokens: Tokens that every recipe trains on; None for each recipe's own length.
        output: Folder of the page; one in the first recipe's `output_dir` where it is None.
    """

    files: Sequence[str]
    overrides: Sequence[str]
    seeds: Sequence[int]
    baseline: str | None = None
    tokens: int | None = None
    output: Path | None = None

    @property
    def command(self) -> str:
        """What compares the same again on any machine: without the folders."""
        overrides = [word for word in self.overrides if not word.startswith(("output_dir=", "hub_dir="))]
        words = ["distill", "compare", *map(_shown, self.files), *overrides, "--seeds", *map(str, self.seeds)]
        words += ["--baseline", self.baseline] if self.baseline else []
        return shlex.join(words + (["--tokens", str(self.tokens)] if self.tokens else []))


@dataclass(frozen=True)
class Arm:
    """A recipe among those that are compared.

    Attributes:
        file: Its file.
        overrides: All that are laid over it but the seed's.
        recipe: With these overrides.
        problems: Evaluation sets that all recipes share, cut to `evaluation.n`.
        records: Digest of the training records.
        vocabulary: Digest of the student's vocabulary.
        lengths: How long its stages train.
    """

    file: str
    overrides: tuple[str, ...]
    recipe: Recipe
    problems: Mapping[str, Sequence[Problem]]
    records: str = ""
    vocabulary: str = ""
    lengths: tuple[StageLength, ...] = ()

    def seeded(self, seed: int) -> tuple[str, ...]:
        """Return the overrides of one run: initial weights, dropout and order of the records come from the seed."""
        training = [f"stages.{place}.training" for place in range(len(self.recipe.stages))]
        seeds = [f"{section}.{key}={seed}" for section in training for key in ("seed", "data_seed")]
        return (*self.overrides, f"student.seed={seed}", *seeds)


def compare(order: Order, load: Load) -> None:
    """Train and score every recipe with every seed, and write `compare.md`, `.html`, `.json` and `.png`.

    Args:
        order: What is to be compared.
        load: Loads a recipe from its file with overrides.

    Raises:
        UserError: Before anything is trained, every fault of every recipe. At the end, and after all else is written,
            what has failed.
    """
    arms = _arms(order, load)
    from toolkit.training_checks import check_training

    baseline = order.baseline or next(iter(arms))
    for arm in arms.values():
        check_training(arm.recipe)
    arms = _prepared(arms, baseline, order.tokens)
    for arm in arms.values():  # a faulty override would show itself after hours
        load(arm.file, arm.seeded(order.seeds[0]))
    runs, failed = _runs(arms, order.seeds, load)
    if not runs:
        raise UserError("\n".join(_failures(failed)))
    from toolkit.comparison_page import summary, write_pages

    found = _found(order, baseline, arms, runs, failed)
    folder = order.output or Path(next(iter(arms.values())).recipe.output_dir) / f"compare-{_digest(order, arms)}"
    pages = write_pages(folder, found)
    print(f"\n{summary(found)}\n")
    for page in pages:
        print(f"{page.suffix[1:]:<6}{page}")
    if failed:
        raise UserError("\n".join(_failures(failed)))


def _shown(file: str) -> str:
    """Return how a recipe's file is told: relative, and by its name alone where it lies outside."""
    shown = os.path.relpath(file)
    return os.path.basename(file) if shown.startswith(os.pardir) else shown


def _digest(order: Order, arms: Mapping[str, Arm]) -> str:
    from toolkit.runs import digest_of

    digests = [arm.recipe.digest for arm in arms.values()]
    return digest_of(digests, list(order.seeds), order.baseline, order.tokens)[:12]


# --- before anything is trained


def _arms(order: Order, load: Load) -> dict[str, Arm]:
    """Return the recipes by name, each as it takes part.

    Raises:
        UserError: Every fault of every recipe, or of the words beside them.
    """
    if wrong := [word for word in order.overrides if _SEED.match(word)]:
        raise UserError(f"found the override {wrong[0]}, allowed are --seeds: every recipe gets the same ones")
    if not order.seeds or len(set(order.seeds)) < len(order.seeds):
        found = ", ".join(map(str, order.seeds)) or "none"
        raise UserError(f"--seeds: found {found}, allowed at least one whole number >= 0, none of them twice")
    overrides = (*order.overrides, *_ALONE)
    arms: dict[str, Arm] = {}
    faults: list[Fault] = []
    for file in order.files:
        try:
            recipe = load(file, overrides)
        except RecipeFaults as found_faults:
            faults += found_faults.faults
            continue
        name = recipe.recipe.name
        if name in arms:
            text = f"found {name!r}, the name of {arms[name].file} already; a recipe takes part once"
            faults.append(Fault(Place(file), "recipe.name", text))
        if not recipe.stages:
            faults.append(Fault(Place(file), "stages", "missing: there is no student to train"))
        if recipe.evaluation is None:
            faults.append(Fault(Place(file), "evaluation", "missing: there is nothing to score on"))
        arms.setdefault(name, Arm(file, overrides, recipe, {}))
    if faults:
        raise RecipeFaults(faults)
    if order.baseline is not None and order.baseline not in arms:
        hint = nearest(order.baseline, arms)
        raise UserError(f"--baseline: found {order.baseline!r}, allowed {', '.join(arms)}{hint}")
    return arms


def _prepared(arms: Mapping[str, Arm], baseline: str, tokens: int | None) -> dict[str, Arm]:
    """Return the recipes with their questions, and with the lengths at which they are trained.

    Raises:
        UserError: What stands in the way of any of them, or the recipes do not answer the same questions.
    """
    prepared: dict[str, Arm] = {}
    wrong: list[str] = []
    for name, arm in arms.items():
        try:
            prepared[name] = _with_length(arm, tokens)
        except UserError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise UserError("\n".join(wrong))
    shared = shared_sets({name: arm.problems for name, arm in prepared.items()}, baseline)
    return {name: replace(arm, problems={on: arm.problems[on] for on in shared}) for name, arm in prepared.items()}


def _with_length(arm: Arm, tokens: int | None) -> Arm:
    from toolkit import token_budget
    from toolkit.pipeline import student_tokenizer, training_rows
    from toolkit.results import evaluation_sets
    from toolkit.runs import digest_of, rows_digest

    recipe = arm.recipe
    assert recipe.evaluation is not None
    rows = training_rows(recipe)
    tokenizer = student_tokenizer(recipe, rows)
    lengths = token_budget.own_lengths(recipe, rows, tokenizer)
    overrides = list(arm.overrides)
    if tokens is not None:
        lengths = token_budget.within_budget(lengths, tokens)
        for place, length in enumerate(lengths):
            section = f"stages.{place}.training"
            overrides += [f"{section}.num_train_epochs={length.epochs}", f"{section}.max_steps=-1"]
    told = ", ".join(
        f"{length.stage} {length.epochs:.2f} epochs of {length.tokens_per_epoch:,} tokens" for length in lengths
    )
    print(f"{recipe.recipe.name}: {told}")
    problems = {name: asked[: recipe.evaluation.n] for name, asked in evaluation_sets(recipe)[0].items()}
    return replace(
        arm,
        overrides=tuple(overrides),
        problems=problems,
        records=rows_digest(rows),
        vocabulary=digest_of(sorted(tokenizer.get_vocab().items())),
        lengths=tuple(lengths),
    )


def shared_sets(arms: Mapping[str, Mapping[str, Sequence[Problem]]], baseline: str) -> list[str]:
    """Return the names of the evaluation sets that all recipes have.

    Args:
        arms: Evaluation sets by recipe and name.
        baseline: Recipe that the others are held against.

    Raises:
        UserError: There is no such set, or one of them asks other questions in one recipe than in the baseline.
    """
    shared = [name for name in arms[baseline] if all(name in sets for sets in arms.values())]
    if not shared:
        had = "; ".join(f"{name} has {', '.join(sets)}" for name, sets in arms.items())
        raise UserError(f"evaluation.sets: the recipes share no set by name, so nothing can be compared: {had}")
    for on in shared:
        expected = _asked(arms[baseline][on])
        for name, sets in arms.items():
            if asked := _asked(sets[on]) ^ expected:
                example = min(id for id, _, _ in asked)
                raise UserError(
                    f"evaluation.sets.{on}: {name} asks {len(sets[on])} questions and {baseline} "
                    f"{len(arms[baseline][on])}, and they are not the same: {example!r}, for one, has another question "
                    "or answer there, or is in one of them alone. Compare recipes on the same questions"
                )
    return shared


def _asked(problems: Iterable[Problem]) -> set[tuple[str, str, str]]:
    return {(problem.id, problem.question, problem.answer) for problem in problems}


# --- training and scoring


def _runs(
    arms: Mapping[str, Arm], seeds: Sequence[int], load: Load
) -> tuple[dict[str, list[ArmRun]], dict[str, dict[str, Any]]]:
    """Run every recipe with every seed, the first seed of all of them first.

    Returns:
        The runs of the recipes that came through with every seed, and of each other one the seed and the error.
    """
    runs: dict[str, list[ArmRun]] = {name: [] for name in arms}
    failed: dict[str, dict[str, Any]] = {}
    for turn, seed in enumerate(seeds):
        for place, (name, arm) in enumerate(arms.items(), 1):
            if name in failed:
                continue
            print(f"\n[{turn * len(arms) + place}/{len(seeds) * len(arms)}] {name}, seed {seed}")
            try:
                runs[name].append(_run(load(arm.file, arm.seeded(seed)), arm, seed))
            except BrokenPipeError:  # nobody reads what is printed: the command ends
                raise
            except Exception as error:  # whatever it is, the other recipes are to be finished
                if not isinstance(error, UserError):
                    traceback.print_exc()
                told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                failed[name] = {"seed": seed, "error": told}
                print(f"{name}, seed {seed} failed; the other recipes go on")
    return {name: done for name, done in runs.items() if name not in failed}, failed


def _run(recipe: Recipe, arm: Arm, seed: int) -> ArmRun:
    from toolkit.comparison import ArmRun
    from toolkit.folder_lock import owned
    from toolkit.pipeline import train_students
    from toolkit.results import score

    trained = train_students(recipe)
    own, chain = list(trained.students.items())[-1]
    with writing(trained.run.folder, "scores"), owned(trained.run.folder, "is written"):
        _, rows = score(recipe, trained.run, {own: chain}, trained.start, arm.problems)
    stages = [trained.outcomes[link.folder] for link in chain]
    gc.collect()  # a trainer refers to itself and would hold on to its device's memory while the next one trains
    # By question: recipes may list the same ones in another order.
    return ArmRun(seed, recipe.digest, stages, {on: sorted(rows[own][on], key=_by_question) for on in arm.problems})


def _by_question(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["id"], row["sample"]


def _failures(failed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{name} failed with seed {fault['seed']}: {fault['error']}" for name, fault in failed.items()]


# --- what came of it


def _found(
    order: Order,
    baseline: str,
    arms: Mapping[str, Arm],
    runs: Mapping[str, Sequence[ArmRun]],
    failed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return everything that the pages show, ready for JSON."""
    from toolkit.comparison import arms_compared
    from toolkit.installed import lock
    from toolkit.results import gap_sets
    from toolkit.scores import extractor
    from toolkit.student_card import describe_hardware, library_versions

    first = next(iter(arms.values()))
    gap = gap_sets(arms[baseline].recipe)
    is_shared = gap is not None and {gap[0], *gap[1]} <= first.problems.keys()
    compared = arms_compared(runs, baseline, gap if is_shared else None)
    return {
        "command": order.command,
        "baseline": baseline,
        "seeds": list(order.seeds),
        "tokens": order.tokens,
        "sets": {on: _questions(asked) for on, asked in first.problems.items()},
        "recipes": {name: _about(arms[name], done) | compared[name] for name, done in runs.items()},
        "failed": dict(failed),
        "versions": library_versions(lock()) | {"extractor": extractor()},
        "hardware": describe_hardware(next(iter(runs.values()))[0].stages[-1]["device"]),
    }


def _questions(asked: Sequence[Problem]) -> dict[str, Any]:
    """Return what is known of a set's questions, in the order of every `solved`; `pairs` are what errors go by."""
    ordered = sorted(asked, key=lambda problem: problem.id)
    return {
        "n": len(ordered),
        "ids": [problem.id for problem in ordered],
        "pairs": [problem.pair for problem in ordered] if any(problem.pair for problem in ordered) else None,
    }


def _about(arm: Arm, runs: Sequence[ArmRun]) -> dict[str, Any]:
    from toolkit.runs import digest_of

    recipe = arm.recipe
    assert recipe.student is not None
    assert recipe.evaluation is not None
    return {
        "recipe": recipe.recipe.model_dump(),
        "file": _shown(arm.file),
        "digest": recipe.digest,
        "dataset": {"repo_id": recipe.dataset.repo_id, "revision": recipe.dataset.revision, "records": arm.records},
        "student": {
            "name": _student(recipe.student),
            "digest": digest_of(recipe.student.model_dump(mode="json", exclude={"seed"})),
        },
        "vocabulary": arm.vocabulary,
        "decode": recipe.decode.model_dump(mode="json") if recipe.decode else None,
        "lengths": [asdict(length) for length in arm.lengths],
        "still_warming_up": [
            stage.name
            for stage, outcome in zip(recipe.stages, runs[0].stages, strict=True)
            if (stage.training.get("warmup_steps") or 0) >= outcome["steps"]
        ],
        "left_out_sets": [name for name in recipe.evaluation.sets if name not in arm.problems],
    }


def _student(student: Student) -> str:
    """Return what the student is: a model of the Hub, a folder by its name alone, or a configuration's main figures."""
    if student.model_name_or_path:
        return (
            Path(student.model_name_or_path).name
            if os.path.exists(student.model_name_or_path)
            else student.model_name_or_path
        )
    config = student.from_config or {}
    sizes = [f"{key} {config[key]}" for key in ("hidden_size", "num_hidden_layers") if key in config]
    return ", ".join([f"{config['model_type']} from random weights", *sizes])
