"""Where a recipe's results lie, and what each of them depends on.

    <output_dir>/<recipe>/stages/<stage>-<digest>/student     one trained stage, shared by every run that needs it
    <output_dir>/<recipe>/<digest>/                            one run: recipe, scores, samples, report

A stage's digest covers all that can change its weights: the student it starts from, the records, its views and
training arguments, and the code between them. So an override retrains what it touches and nothing else, two
students that share a first stage train it once, and the same command always finds its own checkpoints.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.hub_revisions import base_commit, pinned_arguments

if TYPE_CHECKING:
    from toolkit.recipe import Recipe, Stage
    from toolkit.recipe_sections import Student

# Code that decides which weights come out of a stage, beside the libraries.
_CODE = (
    "alignment",
    "answer_readings",
    "answer_removal",
    "draws",
    "encoding",
    "held_out",
    "layout",
    "objective",
    "sampling",
    "selection",
    "soft_targets",
    "stage_views",
    "stages",
    "students",
    "swaps",
    "transform_settings",
    "transforms",
    "trl_seams",
    "views",
    "vocabulary",
)


def digest_of(*parts: Any) -> str:
    """Return the SHA-256 (hex) of JSON-serialisable parts; the order of keys counts (that of views has a meaning)."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 (hex) of a dataset's records, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=True, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Return the SHA-256 (hex) of the toolkit's own code between records and weights, as it was when first asked."""
    return digest_of(*[inspect.getsource(importlib.import_module(f"toolkit.{name}")) for name in _CODE])


def _own_tokens(student: Student) -> tuple[Any, ...]:
    """Return what a recipe changes of a tokenizer."""
    return student.special_tokens, student.eos_token, student.pad_token, student.chat_template


@dataclass(frozen=True)
class TrainedStage:
    """A stage and where it lies.

    Attributes:
        stage: The recipe's section.
        folder: Its own folder; `student/` in it is the result.
        start: Student it starts from: a folder or a model of the Hub.
    """

    stage: Stage
    folder: Path
    start: str

    @property
    def student(self) -> Path:
        """Folder of the trained student."""
        return self.folder / "student"


@dataclass(frozen=True)
class Run:
    """One run of a recipe on one dataset.

    Attributes:
        recipe: The resolved recipe.
        rows: Digest of the records.
    """

    recipe: Recipe
    rows: str

    @property
    def root(self) -> Path:
        """Folder of everything that this recipe's name has made."""
        return Path(self.recipe.output_dir) / self.recipe.recipe.name

    @property
    def folder(self) -> Path:
        """Folder of this run's scores, samples and report."""
        student = self.recipe.student
        commit = base_commit(student) if student else None
        return self.root / digest_of(self.recipe.digest, self.rows, *([commit] if commit else []))[:12]

    @property
    def makes_its_start(self) -> bool:
        """Whether training starts from a student that is made here, and not from one as it was loaded."""
        student = self.recipe.student
        return student is not None and (not student.model_name_or_path or any(_own_tokens(student)))

    @property
    def start(self) -> Path:
        """Folder of the student that is made here, from a configuration or with other tokens than it brings."""
        student = self.recipe.student
        assert student is not None
        tokenizer = student.tokenizer.vocab_size if student.tokenizer else None
        made_of: list[Any] = [student.from_config, tokenizer, *_own_tokens(student), student.seed]
        if student.model_name_or_path:
            made_of += [student.model_name_or_path, pinned_arguments(student)]
        elif self.recipe.dataset.builder is None:  # the tokenizer is trained on what the views show
            shown = {"prompt", "target", "select", "each", "before"}
            made_of += [
                view.model_dump(mode="json", include=shown)
                for stage in self.recipe.stages
                for view in stage.views.values()
                if view.coefficient
            ]
        identity = digest_of(made_of, self.rows, code_digest())
        return self.root / "stages" / f"start-{identity[:12]}"

    def chain(self, stages: Sequence[Stage]) -> list[TrainedStage]:
        """Return where each of some stages lies, trained one after the other from the recipe's student."""
        student = self.recipe.student
        assert student is not None
        arguments = pinned_arguments(student)
        start = str(self.start) if self.makes_its_start else str(student.model_name_or_path)
        identity = digest_of(
            self.start.name if self.makes_its_start else start,
            arguments,
            student.prompt_format,
            self.rows,
            code_digest(),
        )
        chain = []
        for stage in stages:
            identity = digest_of(identity, stage.model_dump(mode="json"))
            trained = TrainedStage(stage, self.root / "stages" / f"{stage.name}-{identity[:12]}", start)
            chain.append(trained)
            start = str(trained.student)
        return chain
