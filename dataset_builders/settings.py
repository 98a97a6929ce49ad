"""The `dataset.config` of every builder, as strict pydantic models. Imports neither `datasets` nor torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from toolkit.collect_settings import CollectSettings
from toolkit.errors import UserError, nearest
from toolkit.licences import Licence
from toolkit.named_files import DataFile, TextFile, TokenizerName
from toolkit.problem_files import Row
from toolkit.problem_rows import Kind
from toolkit.problem_sources import ProblemsConfig
from toolkit.schema import Strict
from toolkit.teachers.kinds import TeacherConfig
from toolkit.views import columns, lookup


def _template(text: str) -> str:
    try:
        columns(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    return text


Positive = Annotated[int, Field(ge=1)]
Template = Annotated[str, AfterValidator(_template)]


class SamplingSettings(Strict):
    """Sampling parameters of every request.

    Attributes:
        temperature: EDIT's 0.2: a second try must be able to differ, the first should not be noise.
        top_p: Nucleus mass.
        max_tokens: Most tokens of a completion; one cut here is rejected, never kept half.
        seed: Passed on to endpoints that honour one.
    """

    temperature: float = Field(default=0.2, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: Positive = 2048
    seed: int | None = None


class LogprobSampling(SamplingSettings):
    """Sampling parameters of `teacher_cots`, beside which log-probabilities may be kept.

    Attributes:
        top_logprobs: Most likely tokens kept at each place of a completion, with their log-probabilities, in the column
            `chain.logprobs`; 0 for none. Teachers of kind `transformers` give them, and some servers, mostly at
            most 20.
    """

    top_logprobs: int = Field(default=0, ge=0)


class PromptFiles(Strict):
    """Prompt files that replace the default templates, `{task}` in a path standing for the problem's task."""

    cot: TextFile | None = None
    answer_hint: TextFile | None = None
    contrastive: TextFile | None = None
    rationalise: TextFile | None = None
    socratic: TextFile | None = None
    pot: TextFile | None = None
    explain: TextFile | None = None
    edit: TextFile | None = None
    blind_label: TextFile | None = None
    refute: TextFile | None = None


class Recording(Strict):
    """Files of prompts and completions that somebody else recorded, for a `recorded` teacher.

    Attributes:
        path: File or glob pattern, as for problems of source `jsonl`.
        records: Key of the list of rows in a JSON document that is an object.
        prompt: Key of the whole prompt, exactly as it was sent.
        completion: Key of what came back: text, or a list of chunks as in a chat API.
        model: Who wrote it, as far as the source says.
    """

    path: DataFile
    records: str | None = None
    prompt: str = "prompt"
    completion: str = "completion"
    model: str = "unknown"

    def check_row(self, row: Row) -> None:
        """Check that a row has both texts.

        Raises:
            UserError: It has not.
        """
        for name in (self.prompt, self.completion):
            if not isinstance(row.data.get(name), str):
                raise UserError(f"no text {name!r} among {list(row.data)}{nearest(name, row.data)}")


class Pairs(Strict):
    """Ready-made right and wrong chains: JSON Lines with id, task, question, gold, right.cot and wrong.cot.

    Attributes:
        path: The file, gzipped or not.
        kinds: How the answers of a task are compared, where `auto` should not decide.
    """

    path: DataFile
    kinds: dict[str, str] = Field(default_factory=dict)

    def check_row(self, row: Row) -> None:
        """Check that a row has its columns.

        Raises:
            UserError: It has not.
        """
        for name in ("id", "task", "question", "gold", "right.cot", "wrong.cot"):
            lookup(row.data, name)


class ReadyMade(Strict):
    """A file of questions whose reasoning is there already, a row each.

    Attributes:
        path: File or glob pattern, as for problems of source `jsonl`.
        question: Column of the question, or a template over several.
        answer: Column of the gold answer.
        task: Task name; `{stem}` is the name of the file.
        kind: How answers are compared.
        model: Who wrote the reasoning, as far as the source says.
    """

    path: DataFile
    question: Template = "question"
    answer: str = "answer"
    task: str = "{stem}"
    kind: Kind = "auto"
    model: str = "unknown"

    def check_row(self, row: Row) -> None:
        """Check that a row has the columns that are named.

        Raises:
            UserError: It has not.
        """
        for path in (*columns(self.question), self.answer):
            lookup(row.data, path)


class WrittenChains(ReadyMade):
    """Ready-made chains, a row each; a question may have several.

    Attributes:
        chain: Column of the chain with its final answer, as a teacher would have written it, or a template over several
            columns: `{rationale} The answer is {label}.`
        choices: Column of the answer options, as in `columns.choices` of problems.
    """

    chain: Template = "chain"
    choices: str | None = None

    def check_row(self, row: Row) -> None:
        """See `ReadyMade.check_row`."""
        super().check_row(row)
        for path in (*columns(self.chain), *([self.choices] if self.choices else [])):
            lookup(row.data, path)


class Decomposed(ReadyMade):
    """Ready-made sub-questions and answers, as GSM8K's socratic files have them.

    A row's answer holds a line `sub-question ** sub-answer` per step, then `#### ` and the gold answer.

    Attributes:
        answer: Column of the steps and the gold answer.
    """


class BuilderSettings(Strict):
    """What all builders share.

    Attributes:
        title: Heading of the card; the repository's name where it is empty.
        summary: A paragraph for the card: where the questions come from, what the data is good for.
        license: Licence identifier of the Hub, for the card's metadata; an SPDX identifier becomes the Hub's.
        source_terms: Licences and terms of the questions and of the teacher's output, for the card.
        language: Languages of the text, for the card's metadata.
        problems: Where the questions come from.
        teacher: Who writes the completions; a list where there are several, each of whom is asked everything.
        recordings: Files that are read into a `recorded` teacher's store before anything is asked.
        prompts: Prompt files that replace the default ones.
        sampling: Sampling parameters of every request.
        collect: How the teacher is asked: concurrency, retries, failure rate.
        max_characters: Longer completions are rejected: nothing sane is that long, and aligning it is quadratic.
        check_against: Evaluation sets whose test questions are searched for in the data, for the card.
        tokenizer: A Hub id or a folder with `tokenizer.json`: key shares are given in words and in its tokens; by
            default in those of a small one trained on the chains.
    """

    title: str = ""
    summary: str = ""
    license: Licence | None = None
    source_terms: str = ""
    language: tuple[str, ...] = ("en",)
    problems: ProblemsConfig | None = None
    teacher: TeacherConfig | Annotated[tuple[TeacherConfig, ...], Field(min_length=1)] | None = None
    recordings: tuple[Recording, ...] = ()
    prompts: PromptFiles = PromptFiles()
    sampling: SamplingSettings = SamplingSettings()
    collect: CollectSettings = CollectSettings()
    max_characters: Positive = 20_000
    check_against: dict[str, ProblemsConfig] = Field(default_factory=dict)
    tokenizer: TokenizerName | None = None

    @model_validator(mode="after")
    def _recordings_have_a_reader(self) -> Self:
        readers = [teacher for teacher in self.teachers if teacher.kind == "recorded"]
        if self.recordings and not readers:
            raise ValueError("recordings are read by a teacher of kind 'recorded', and this one is not")
        if self.recordings and len(readers) > 1:
            raise ValueError(f"recordings are read by one teacher of kind 'recorded', found {len(readers)} of them")
        return self

    @model_validator(mode="after")
    def _batches_have_a_provider(self) -> Self:
        for teacher in self.teachers if self.collect.mode == "batch" else ():
            if teacher.kind != "openai":
                raise ValueError(
                    f"collect.mode: found 'batch', which a teacher of kind 'openai' can do, not {teacher.kind!r}"
                )
            if isinstance(teacher.base_url, tuple):
                raise ValueError("collect.mode: found 'batch', which needs one base_url: a batch lives at one provider")
        return self

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """All who write completions, in order; nobody where the chains are there already."""
        if self.teacher is None:
            return ()
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    def alone(self, teacher: TeacherConfig) -> Self:
        """Return these settings with one teacher only."""
        return self.model_copy(update={"teacher": teacher})

    def knobs(self) -> dict[str, Any]:
        """Return the settings that decide what is in the rows, without paths: those enter by their content."""
        return self.model_dump(mode="json", include={"sampling", "max_characters"})


class DualCotsSettings(BuilderSettings):
    """Settings of `dual_cots`; either `problems` and `teacher`, or `pairs`.

    Attributes:
        samples: Chains asked per problem; each becomes a record of its own.
        tries: How often a rectification or a corruption is sampled until its final answer is as asked.
        exemplars: Most (right, wrong) pairs of the teacher's own that a contrastive prompt shows.
        seed: Draws the exemplars, together with the problem's id.
        pairs: Ready-made chains instead of a teacher.
    """

    samples: Positive = 1
    tries: Positive = 3
    exemplars: int = Field(default=3, ge=0)
    seed: int = 0
    pairs: Pairs | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.pairs is not None and self.teacher is not None:
            raise ValueError("pairs are chains that are there already: leave out either pairs or teacher")
        if self.pairs is None and (self.problems is None or self.teacher is None):
            raise ValueError("name problems and a teacher, or a file of ready-made pairs")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        return {**super().knobs(), **self.model_dump(mode="json", include={"samples", "tries", "exemplars", "seed"})}


class TeacherCotsSettings(BuilderSettings):
    """Settings of `teacher_cots`; either `problems` and `teacher`, or `chains`.

    Attributes:
        samples: Chains asked per problem; each becomes a record.
        keep: `right` publishes chains whose final answer is gold and rejects the others; `all` keeps wrong ones
            too, told apart by the column `correct`.
        chains: Ready-made chains instead of a teacher; `problems` then gives the held-out questions alone.
        demonstrations: Other training questions of the task shown with each one, in the columns
            `demonstrations.answers` (with their answers) and `demonstrations.chains` (with right chains); 0 for
            no such columns. A record has fewer where there are no more, and is rejected without any.
        seed: Draws the demonstrations, together with the record's id.
    """

    sampling: LogprobSampling = LogprobSampling()
    samples: Positive = 1
    keep: Literal["right", "all"] = "right"
    chains: WrittenChains | None = None
    demonstrations: int = Field(default=0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.chains is not None and self.teacher is not None:
            raise ValueError("chains names chains that are there already: leave out either chains or teacher")
        if self.chains is None and (self.problems is None or self.teacher is None):
            raise ValueError("name problems and a teacher, or a file of ready-made chains in chains")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        names = {"samples", "keep", *(("demonstrations", "seed") if self.demonstrations else ())}
        return {**super().knobs(), **self.model_dump(mode="json", include=names)}


class CounterfactualRationalesSettings(BuilderSettings):
    """Settings of `counterfactual_rationales`.

    Attributes:
        tries: How often a side is asked for until its reasoning ends in the answer that was given.
        seed: Draws the wrong answers, together with the problem's id.
        contrastive: Decode each side against the other one, as SCOTT does: every request carries the same prompt with
            the other answer. Only a teacher of kind `transformers` can, or a recording of one.
    """

    tries: Positive = 3
    seed: int = 0
    contrastive: bool = False

    @model_validator(mode="after")
    def _has_an_origin(self) -> Self:
        if self.problems is None or self.teacher is None:
            raise ValueError("name problems and a teacher")
        for teacher in self.teachers if self.contrastive else ():
            if teacher.kind in ("openai", "procedural"):
                raise ValueError(f"contrastive decoding needs a teacher of kind 'transformers', not {teacher.kind!r}")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        return {**super().knobs(), **self.model_dump(mode="json", include={"tries", "seed", "contrastive"})}


class SocraticStepsSettings(BuilderSettings):
    """Settings of `socratic_steps`; either `problems` and `teacher`, or `decomposed`.

    Attributes:
        tries: How often a question is asked until its steps are as they should be and end in the gold answer.
        min_steps: Fewest sub-questions of a record; fewer is hardly a decomposition.
        decomposed: Ready-made steps instead of a teacher.
    """

    tries: Positive = 3
    min_steps: Positive = 2
    decomposed: Decomposed | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.decomposed is not None and self.teacher is not None:
            raise ValueError("decomposed names steps that are there already: leave out either decomposed or teacher")
        if self.decomposed is None and (self.problems is None or self.teacher is None):
            raise ValueError("name problems and a teacher, or a file of ready-made steps in decomposed")
        return self

    def knobs(self) -> dict[str, Any]:
        """See `BuilderSettings.knobs`."""
        return {**super().knobs(), **self.model_dump(mode="json", include={"tries", "min_steps"})}
