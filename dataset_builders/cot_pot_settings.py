"""The `dataset.config` of `cot_pot_mix`. Imports neither `datasets` nor torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dataset_builders.settings import BuilderSettings, Positive, SamplingSettings, Template
from toolkit.named_files import DataFile
from toolkit.schema import Strict


class WrittenTexts(Strict):
    """A file of ready-made chains or programs, which belong to problems by what both have in common.

    Attributes:
        path: File or glob pattern, as for problems of source `jsonl`.
        records: Key of the list of rows in a JSON document that is an object.
        by: What a row has of its problem: its `id`, or the `question`, of which the words alone are compared.
        key: Column or template of that.
        text: Column or template of the chain, with its answer, or of the program, which leaves its answer in `ans`; a
            line such as `ans = answer` may follow the column. A column may be a list of one; rows without it are passed
            over.
        model: Who wrote it, as far as the source says.
    """

    path: DataFile
    records: str | None = None
    by: Literal["id", "question"] = "id"
    key: Template = "id"
    text: Template = "completion"
    model: str = "unknown"


class WrittenMix(Strict):
    """Ready-made chains and programs for the problems; of several files for one kind all count.

    Attributes:
        cot: Files of chains of thought.
        pot: Files of programs.
    """

    cot: tuple[WrittenTexts, ...] = Field(min_length=1)
    pot: tuple[WrittenTexts, ...] = Field(min_length=1)


class MixSampling(SamplingSettings):
    """Sampling parameters of `cot_pot_mix`, whose samples are to differ.

    Attributes:
        temperature: Softmax temperature.
        max_tokens: Most tokens of a chain or a program.
    """

    temperature: float = Field(default=0.7, ge=0, le=2)
    max_tokens: Positive = 512


class CotPotMixSettings(BuilderSettings):
    """Settings of `cot_pot_mix`; `problems`, and either a `teacher` or `written`.

    Attributes:
        cots: Chains of thought asked per problem.
        programs: Programs asked per problem.
        pairs: Most records of a problem. It gets as many as it has right ones of the kind that has fewer.
        labels: What a chain or a program is held against: the problem's `gold` answer, or, where none is to be looked
            at, the one that most of them agree on, which at least one of each kind must have.
        jail: Run programs that need more than the interpreter has, such as numpy, in a jailed CPython
            (docs/programs.md). Without it they are rejected, on every machine alike.
        written: Ready-made chains and programs instead of a teacher.
    """

    sampling: MixSampling = MixSampling()
    cots: Positive = 4
    programs: Positive = 4
    pairs: Positive = 2
    labels: Literal["gold", "agreement"] = "gold"
    jail: bool = False
    written: WrittenMix | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.problems is None:
            raise ValueError("name problems")
        if (self.written is None) == (self.teacher is None):
            raise ValueError("name a teacher, or files of ready-made chains and programs in written, and not both")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        names = {"cots", "programs", "pairs", "labels", "jail"}
        return {**super().knobs(), **self.model_dump(mode="json", include=names)}
