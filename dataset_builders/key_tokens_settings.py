"""The `dataset.config` of `key_tokens`. Imports neither `datasets` nor torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dataset_builders.settings import BuilderSettings, Positive
from toolkit.errors import UserError, nearest
from toolkit.named_files import ModelName, RecipeFile
from toolkit.recipe_names import RepoId, Revision
from toolkit.schema import Strict
from toolkit.views import columns

# Columns of a question that a template may take beside its own.
QUESTION_TEXTS = ("question", "task", "task_description")


class PublishedChains(Strict):
    """A dataset of chains that was published before, as `teacher_cots` publishes it.

    Attributes:
        repo_id: Its name in the local hub, or on the Hub.
        revision: Version tag; on the Hub also a commit.
        recipe: Recipe that builds it; named where the dataset is missing.
    """

    repo_id: RepoId
    revision: Revision
    recipe: RecipeFile | None = None


class Attributor(Strict):
    """The student whose answers are attributed: one that reads a rationale before it answers.

    Attributes:
        model: A student in the local hub, a folder, or a model of the Hub.
        revision: Version tag in the local hub; on the Hub also a branch or a commit.
        recipe: Recipe that trains it; named where the student is missing.
        prompt_format: As in `student.prompt_format` of that recipe.
    """

    model: ModelName
    revision: str | None = None
    recipe: RecipeFile | None = None
    prompt_format: Literal["plain", "chat"] = "plain"


class KeyTokensSettings(BuilderSettings):
    """Settings of `key_tokens`, which asks no teacher. The templates must be those the attributor was trained with.

    Attributes:
        chains: The chains whose words are scored.
        attributor: The student that scores them.
        keep: `right` rejects chains whose final answer is not gold, without scoring them; `all` scores them too.
        prompt: Template of its prompt; takes `{question}` once.
        rationale: Template of the piece with the rationale; takes `{chain.rationale}` once.
        marker: Template of the piece with the answer; takes `{answer}` once. Only the answer's tokens are attributed.
        steps: Points at which the gradient is taken; more lower the completeness error, at that many times the price.
        baseline: What a rationale is compared with: as many padding tokens, or zeros in place of its embeddings. Models
            that normalise their inputs (RMSNorm) jump near zero, and their completeness error is large then.
        sign: Whether a word adds up the absolute scores of its tokens or the signed ones.
        batch_size: Points in one forward pass; scores do not depend on it.
    """

    chains: PublishedChains
    attributor: Attributor
    keep: Literal["right", "all"] = "all"
    prompt: str = "Q: {question}\nA:"
    rationale: str = " {chain.rationale}"
    marker: str = "\nTherefore, the answer is {answer}."
    steps: int = Field(default=32, ge=2)
    baseline: Literal["pad", "zero"] = "pad"
    sign: Literal["abs", "signed"] = "abs"
    batch_size: Positive = 32

    @field_validator("prompt", "rationale", "marker")
    @classmethod
    def _takes_its_column_once(cls, template: str, info: ValidationInfo) -> str:
        column = {"prompt": "question", "rationale": "chain.rationale", "marker": "answer"}[str(info.field_name)]
        try:
            taken = columns(template)
        except UserError as error:
            raise ValueError(str(error)) from None
        if taken.count(column) != 1:
            raise ValueError(f"must take {{{column}}} exactly once, takes {taken or 'nothing'}")
        known = [*QUESTION_TEXTS, column]
        if unknown := [path for path in taken if path not in known]:
            raise ValueError(f"found the column {unknown[0]!r}, allowed {known}{nearest(unknown[0], known)}")
        return template

    @model_validator(mode="after")
    def _asks_nobody(self) -> Self:
        if self.problems is not None or self.teacher is not None:
            raise ValueError("the chains are there already: leave out problems and teacher")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        names = {"keep", "steps", "baseline", "sign", "prompt", "rationale", "marker"}
        return self.model_dump(mode="json", include=names)
