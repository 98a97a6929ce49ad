"""The `dataset.config` of `counterfactual_pairs`, as `dataset_builders.settings` has those of the other builders."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dataset_builders.settings import BuilderSettings, Positive, SamplingSettings
from toolkit.errors import UserError, nearest
from toolkit.named_files import DataFile
from toolkit.problem_files import Row
from toolkit.problem_rows import Kind
from toolkit.schema import Strict
from toolkit.views import columns, lookup


class EditedPairs(Strict):
    """Questions and edits of them that somebody else wrote, each with its own label: JSON Lines, JSON or tables.

    Attributes:
        path: File or glob pattern of the originals, as for problems of source `jsonl`; of all rows where `pair` is set.
        revised: Files of edits, if they are not in `path`: their row i belongs to the original i // per_original.
        per_original: Rows in each of these for every original.
        pair: Column whose value an original shares with its edits, which stand below it, where `path` holds all rows.
        answer: Column of the label.
        kind: How answers are compared.
        task: Task name; `{stem}` is the name of the originals' file.
        model: Who wrote the edits, as far as the source says.
    """

    path: DataFile
    revised: tuple[DataFile, ...] = ()
    per_original: Positive = 1
    pair: str | None = None
    answer: str = "answer"
    kind: Kind = "auto"
    task: str = "{stem}"
    model: str = "unknown"

    def check_row(self, row: Row) -> None:
        """Check that a row has the columns that are named here.

        Raises:
            UserError: It has not.
        """
        for path in (self.answer, *([self.pair] if self.pair else [])):
            lookup(row.data, path)

    @model_validator(mode="after")
    def _edits_are_somewhere(self) -> Self:
        if (self.pair is None) == (not self.revised):
            raise ValueError(
                "name either pair, the column that the rows of a pair share, or revised, the files of edits"
            )
        return self


class CounterfactualPairsSettings(BuilderSettings):
    """Settings of `counterfactual_pairs`; either `problems` and `teacher`, or `edited`.

    Attributes:
        sampling: As of any builder, but warmer: votes and edits of one prompt must be able to differ.
        labels: All answers that there are. Questions with options and those of yes and no have their own.
        layout: How a question is made of its fields; with `edited`, of the columns of a row.
        fields: Fields that may be edited, each with the largest edit ratio that counts as small: 0.35 for a long text,
            0.5 for a premise or a passage, 0.8 for a hypothesis or a question (measured on people's edits). Of several
            fields one is drawn for each question.
        min_edit: Smallest edit ratio; 0 for one token at least, which in more than 100 words is less than 0.01.
        bare_negation: Labels towards which an edit that only adds or drops a negation is refused.
        tries: How often an explanation or a refutation is asked for until it ends in the right answer.
        rationales: Explanations of each original; those beyond the first are in the column `whys` alone.
        edits: Edits asked for each label that a question is edited towards.
        votes: How often an edited question is labelled by a teacher that sees nothing else.
        agreeing: How many of these have to be for the new label.
        most: Most edits of an original that are kept.
        seed: Draws the field, and of options the one to edit towards, together with the problem's id.
        edited: Ready-made edits instead of a teacher; `problems` then gives the held-out questions alone.
    """

    sampling: SamplingSettings = SamplingSettings(temperature=0.7)
    labels: tuple[str, ...] = ()
    layout: str = "{question}"
    fields: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default={"question": 0.8}, min_length=1)
    min_edit: float = Field(default=0.01, ge=0, le=1)
    bare_negation: tuple[str, ...] = ("contradiction",)
    tries: Positive = 3
    rationales: Positive = 1
    edits: Positive = 2
    votes: Positive = 3
    agreeing: Positive = 2
    most: Positive = 2
    seed: int = 0
    edited: EditedPairs | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.edited is not None and self.teacher is not None:
            raise ValueError("edited names edits that are there already: leave out either edited or teacher")
        if self.edited is None and (self.problems is None or self.teacher is None):
            raise ValueError("name problems and a teacher, or files of ready-made edits in edited")
        return self

    @model_validator(mode="after")
    def _votes_can_be_won(self) -> Self:
        if self.agreeing > self.votes:
            raise ValueError(f"agreeing: found {self.agreeing}, allowed at most votes, which is {self.votes}")
        return self

    @model_validator(mode="after")
    def _fields_stand_in_the_layout(self) -> Self:
        try:
            known = columns(self.layout)
        except UserError as error:
            raise ValueError(f"layout: {error}") from None
        for name in self.fields:
            if name not in known:
                raise ValueError(f"fields: found {name!r}, allowed {known}, of layout{nearest(name, known)}")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        names = {"labels", "layout", "fields", "min_edit", "bare_negation", "tries", "rationales", "edits", "votes"}
        return {**super().knobs(), **self.model_dump(mode="json", include=names | {"agreeing", "most", "seed"})}
