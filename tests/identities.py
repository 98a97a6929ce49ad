"""What identifies everything that a recipe of the repository makes, as one process computes it: printed as JSON.

python -m tests.identities [RECIPE ...]          # all of them by default
"""

from __future__ import annotations

import json
import sys
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dataset_builders import load_builder
from dataset_builders.building import settings_digest
from dataset_builders.parts import NoAnswers, parts_of
from toolkit import hub_revisions
from toolkit.cli import open_recipe
from toolkit.recipe import Recipe
from toolkit.runs import Run

ROOT = Path(__file__).parents[1]
_REQUESTS, _PROBLEMS = 5, 12
_ASKED: dict[str, list[str]] = {}  # recipes share datasets


def recipes() -> list[Path]:
    """Return every recipe of the repository."""
    return sorted((ROOT / "recipes").rglob("*.yaml"))


def identities(recipe: Recipe) -> dict[str, Any]:
    """Return the digests of a recipe, its dataset, its first requests, its stages and its run.

    The Hub is not asked: every commit is a made-up one.
    """
    found: dict[str, Any] = {
        "recipe": recipe.digest,
        "resolved": json.dumps(recipe.resolved()),
        "summary": recipe.summary(),
    }
    dataset = recipe.dataset
    if dataset.builder is not None:
        found["settings"] = settings_digest(dataset.builder, dataset.config)
        if getattr(dataset.config.problems, "source", None) == "procedural":
            key = dataset.builder + dataset.config.model_dump_json()
            if key not in _ASKED:
                _ASKED[key] = _first_requests(dataset.builder, dataset.config)
            found["requests"] = _ASKED[key]
    if recipe.student is not None and recipe.stages:
        run = Run(recipe, "rows", "texts", "questions")
        found |= {"origin": run.origin, "run": str(run.folder), "start": str(run.start)}
    return found


def _first_requests(builder_name: str, settings: Any) -> list[str]:
    """Return the digests of the first requests to each embedded teacher, on a few problems."""
    builder: Any = load_builder(builder_name)
    teachers = [teacher for teacher in settings.teachers if teacher.kind == "procedural"]
    few = settings.model_copy(
        update={"problems": settings.problems.model_copy(update={"n": _PROBLEMS, "n_test": _PROBLEMS})}
    )
    problems, _ = builder.inputs(few, Path("hub"))
    digests = []
    for part in chain.from_iterable(parts_of(few.alone(teacher)) for teacher in teachers):
        asked = chain.from_iterable(islice(builder.rounds(problems, part.asker(NoAnswers()), part.settings), 1))
        digests += [request.digest for request in islice(asked, _REQUESTS)]
    return digests


def main(words: list[str]) -> None:
    """Print the identities of recipes by their files."""
    commit = lambda kind, repo_id, revision: f"commit of {kind} {repo_id} at {revision}"  # noqa: E731
    hub_revisions.commit_of = commit  # type: ignore[assignment]
    recipes_ = [Path(word) for word in words] or recipes()
    told = {str(path): identities(open_recipe(str(path))) for path in recipes_}
    told["set"] = {"order of a set": list({"a", "b", "c", "d", "e", "f"}), "torch": "torch" in sys.modules}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
