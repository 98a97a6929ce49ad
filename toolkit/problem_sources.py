"""Where problems come from: the procedural bank, JSON files, any `datasets` path, reasoning_gym.

`open_problems` is the only way in. Ids are unique, and no question is on both sides of a split made here.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import Field, field_validator, model_validator

from toolkit import bank
from toolkit.bank.chain import Pen
from toolkit.errors import UserError, nearest
from toolkit.hub_revisions import commit_of, is_on_hub, load_rows
from toolkit.named_files import DataFile, DatasetFiles, DatasetName
from toolkit.on_disk import DiskCounter, DiskList
from toolkit.problem import Problem
from toolkit.problem_features import named_values
from toolkit.problem_files import Row, read_rows
from toolkit.problem_rows import Columns, DescriptionFile, Kind, digest, problems_of_rows
from toolkit.problem_splits import Cut, Permuted, Split, SplitRule, cut, normalised, permuted
from toolkit.schema import Strict

TEST_SHARE = 0.2
# Draws of a generated source in a row that bring nothing new before it counts as exhausted.
PATIENCE = 2000


class Generated(Strict):
    """What sources that draw their problems share.

    Attributes:
        tasks: Task families to draw from, in turn.
        n: Problems of the train split.
        n_test: Problems of the test split, by default `n` but at most 400.
        seed: Seed of the draws. Which split a question belongs to does not depend on it: a digest of the question
            decides, so that no training question of one seed is a test question of another.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    n: int = Field(default=2000, ge=1)
    n_test: int | None = Field(default=None, ge=1)
    seed: int = 0

    def size(self, split: Split) -> int:
        """Return how many problems a split has."""
        return self.n if split == "train" else self.n_test or min(self.n, 400)


class BankProblems(Generated):
    """What sources that draw from the procedural bank (`toolkit.bank`) share.

    Attributes:
        steps: Difficulty: smallest and largest number of steps per task, where the family's own range is not wanted.
    """

    tasks: tuple[str, ...] = Field(default=bank.IN_DOMAIN, min_length=1)
    steps: dict[str, tuple[int, int]] = Field(default_factory=dict)

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            if task not in bank.FAMILIES:
                raise ValueError(f"unknown task {task!r}, allowed: {list(bank.FAMILIES)}{nearest(task, bank.FAMILIES)}")
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is named twice")
        return tasks

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        for task, (low, high) in self.steps.items():
            if task not in self.tasks:
                raise ValueError(
                    f"steps: {task!r} is not one of the tasks {list(self.tasks)}{nearest(task, self.tasks)}"
                )
            least, most = bank.FAMILIES[task].limits
            if not least <= low <= high <= most:
                raise ValueError(f"steps.{task}: [{low}, {high}] must lie within [{least}, {most}]")
        return self


class ProceduralProblems(BankProblems):
    """The procedural bank (`toolkit.bank`)."""

    source: Literal["procedural"] = "procedural"


class ProceduralPairs(BankProblems):
    """Pairs of questions of the procedural bank in which one number differs, and the answer with it.

    Attributes:
        tasks: Task families to draw from, in turn; some families have no such edits.
        n: Pairs of the train split.
        n_test: Pairs of the test split, by default `n` but at most 400.
    """

    source: Literal["procedural_pairs"]
    tasks: tuple[str, ...] = Field(min_length=1)

    @field_validator("tasks")
    @classmethod
    def _can_be_edited(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        editable = [name for name, family in bank.FAMILIES.items() if type(family).edits is not bank.Family.edits]
        for task in tasks:
            if task not in editable:
                raise ValueError(f"{task!r} has no edits, allowed: {editable}{nearest(task, editable)}")
        return tasks


class ReasoningGymProblems(Generated):
    """Tasks of the reasoning_gym package (extra `reasoning-gym`).

    Answers are compared by this project's matcher, not by reasoning_gym's own scorers: leave out tasks that accept
    several different answers.

    Attributes:
        settings: Settings of a task as reasoning_gym names them, e.g. `{chain_sum: {max_terms: 3}}`.
    """

    source: Literal["reasoning_gym"]
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Rows(Strict):
    """What sources made of rows share.

    Attributes:
        columns: Which column holds what.
        answer_pattern: Regular expression with at most one group; its last match in the answer column is the gold
            answer, e.g. `#### (.+)` for GSM8K.
        kind: Kind of the answers; `choice` is implied where `columns.choices` is set.
        task: Task name where no column has it; `{stem}` is the name of the file or data set.
        task_descriptions: One sentence per task, one for all tasks, or a file to read them from.
        split: How to cut where the source has no splits of its own, by `fraction` or by a count of rows, `train`; or
            the one split that all of it belongs to.
        n: Most problems per split, a sample by the digest of the question; all by default.
    """

    columns: Columns = Columns()
    answer_pattern: str | None = None
    kind: Kind = "auto"
    task: str = "{stem}"
    task_descriptions: str | DescriptionFile | dict[str, str] = Field(default="", union_mode="left_to_right")
    split: SplitRule = Cut()
    n: int | None = Field(default=None, ge=1)

    @field_validator("answer_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern or "").groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if groups > 1:
            raise ValueError(f"{pattern!r} has {groups} groups, at most one is allowed")
        return pattern


class JsonlProblems(Rows):
    """JSON files and tables.

    Attributes:
        path: File or glob pattern. `{split}` in it stands for `train` or `test`:
            the source then has splits of its own. JSON Lines, JSON documents, and tables (`.tsv`, `.csv`) whose first
            line names the columns; all of them also as `.gz`.
        records: Key of the list of rows in a JSON document that is an object.
    """

    source: Literal["jsonl"]
    path: DataFile
    records: str | None = None

    def check_row(self, row: Row) -> None:
        """Check that a row makes a problem.

        Raises:
            UserError: It does not.
        """
        list(problems_of_rows([row], self.columns, self.answer_pattern, self.kind, self.task))


class DatasetProblems(Rows):
    """Anything `datasets.load_dataset` takes.

    Attributes:
        path: Name on the Hub, local folder, or format (`parquet`, `json`, ...) with `data_files`.
        name: Configuration of the data set.
        revision: Tag, branch or commit.
        data_files: Files to read, as `load_dataset` takes them.
        split_names: What the splits are called there. Where both names are the same, `split` says how to cut.
    """

    source: Literal["dataset"]
    path: DatasetName
    name: str | None = None
    revision: str | None = None
    data_files: DatasetFiles | None = None
    split_names: dict[Split, str] = Field(default={"train": "train", "test": "test"})


ProblemsConfig = Annotated[
    ProceduralProblems | JsonlProblems | DatasetProblems | ReasoningGymProblems | ProceduralPairs,
    Field(discriminator="source"),
]


def source_commit(config: ProblemsConfig) -> str | None:
    """Return the commit at which problems are read from a dataset of the Hub; None for any other source.

    Raises:
        UserError: There is no such dataset or revision.
    """
    if isinstance(config, DatasetProblems) and "/" in config.path and is_on_hub(config.path):
        return commit_of("dataset", config.path, config.revision)
    return None


def load_problems(config: ProblemsConfig, split: str) -> list[Problem]:
    """Return the problems of one split as a list; see `open_problems`."""
    return list(open_problems(config, split))


def open_problems(config: ProblemsConfig, split: str) -> Sequence[Problem]:
    """Return the problems of one split, `train` or `test`, in the memory of a few.

    All of the source is read and judged before this returns.

    Raises:
        UserError: A missing, empty or faulty source; the message names file and line (or data set and row).
    """
    if split not in get_args(Split):
        raise UserError(f"split {split!r} is not one of train, test{nearest(split, get_args(Split))}")
    return DiskList(_load(config, cast(Split, split)))


def _load(config: ProblemsConfig, split: Split) -> Iterator[Problem]:
    if isinstance(config, ProceduralProblems):
        yield from _generated(config, split, _bank_stream(config, split))
        return
    if isinstance(config, ProceduralPairs):
        for problem in _generated(config, split, _pair_stream(config, split)):
            edited = _edited(problem, split, config.seed)
            assert edited is not None
            yield replace(problem, pair=problem.id)
            yield replace(edited, id=f"{problem.id}#1", pair=problem.id)
        return
    if isinstance(config, ReasoningGymProblems):
        yield from _generated(config, split, _reasoning_gym_stream(config))
        return
    rows, has_own_splits = _rows(config, split)
    found = problems_of_rows(rows, config.columns, config.answer_pattern, config.kind, config.task)
    problems: Sequence[Problem] = DiskList(problem for _, problem in found)
    describe = _describer({problem.task for problem in problems}, config.task_descriptions)
    places: Sequence[int] = range(len(problems))
    if not has_own_splits and isinstance(config.split, Cut):
        problems = DiskList(cut(problems, config.split, split))
        places = range(len(problems))
    elif not has_own_splits and isinstance(config.split, Permuted):
        places = permuted(len(problems), config.split, split)
    if config.n is not None and config.n < len(places):
        ranks = ((digest(problems[place].question), place) for place in places)
        places = sorted(place for _, place in heapq.nsmallest(config.n, ranks))
    if not places:
        raise UserError(f"{config.path}: no {split} problems; too few rows for the cut {config.split!r}")
    for place in places:
        yield replace(describe(problems[place]), split=split)


def _is_test(question: str) -> bool:
    return int(digest("split", normalised(question))[:15], 16) / 16**15 < TEST_SHARE


Stream = Callable[[str], Iterator[tuple[Problem, str]]]


def _generated(config: Generated, split: Split, stream: Stream) -> Iterator[Problem]:
    """Draw from the tasks in turn; a larger `n` only adds problems at the end.

    A stream yields problems without end, each with the text by which its split is decided.
    """
    seen = DiskCounter()
    streams = {task: stream(task) for task in config.tasks}
    for index in range(config.size(split)):
        task = config.tasks[index % len(config.tasks)]
        for _ in range(PATIENCE):
            problem, core = next(streams[task], (None, ""))
            if problem is None or (_is_test(core) == (split == "test") and seen.count(core) == 1):
                break
        else:
            problem = None
        if problem is None:
            raise UserError(
                f"{task}: ran out of different {split} questions after {index} problems; lower n or vary steps"
            )
        yield replace(problem, split=split, id=f"{task}/{digest(problem.question)[:12]}")


def _edited(problem: Problem, split: Split, seed: int) -> Problem | None:
    """Return an edit of a bank's problem with another answer, None where there is none on this side of the split."""
    found = bank.read(problem.question)
    assert found is not None
    family, facts = found
    edits = list(family.edits(facts))
    random.Random(repr((seed, problem.question, "edit"))).shuffle(edits)
    for edit in edits:
        answer = family.solve(edit, Pen(0))
        if answer != problem.answer and _is_test(family.ask(replace(edit, phrasing=0))) == (split == "test"):
            return replace(problem, question=family.ask(edit), answer=answer)
    return None


def _pair_stream(config: ProceduralPairs, split: Split) -> Stream:
    """Return a stream of the problems that can be edited."""
    plain = _bank_stream(config, split)

    def stream(task: str) -> Iterator[tuple[Problem, str]]:
        return (one for one in plain(task) if _edited(one[0], split, config.seed) is not None)

    return stream


def _bank_stream(config: BankProblems, split: Split) -> Stream:
    def stream(task: str) -> Iterator[tuple[Problem, str]]:
        family = bank.FAMILIES[task]
        rng = random.Random(repr((config.seed, task, split)))
        while True:
            facts = family.draw(rng, rng.randint(*config.steps.get(task, family.steps)))
            answer = family.solve(facts, Pen(0))
            question = family.ask(facts)
            problem = Problem("", task, question, answer, family.kind, family.choices(facts), family.description)
            # The same facts in other words are the same problem: they must not be in both splits.
            yield problem, family.ask(replace(facts, phrasing=0))

    return stream


def _reasoning_gym_stream(config: ReasoningGymProblems) -> Stream:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError(
            "source reasoning_gym needs the extra `reasoning-gym`: pip install 'cot-distillery[reasoning-gym]'"
        ) from None
    for task in (*config.tasks, *config.settings):
        if task not in DATASETS:
            raise UserError(f"reasoning_gym has no task {task!r}{nearest(task, DATASETS)}")

    def stream(task: str) -> Iterator[tuple[Problem, str]]:
        settings = config.settings.get(task, {})
        try:
            entries = reasoning_gym.create_dataset(task, seed=config.seed, size=1_000_000, **settings)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"reasoning_gym task {task!r} with settings {settings}: {error}") from None
        for index in range(len(entries)):
            entry = entries[index]
            if entry["answer"] in (None, ""):
                raise UserError(f"reasoning_gym task {task!r} gives no gold answer (entry {index}); it can't be used")
            yield Problem("", task, entry["question"], str(entry["answer"])), entry["question"]

    return stream


def _rows(config: JsonlProblems | DatasetProblems, split: Split) -> tuple[Iterable[Row], bool]:
    """Return the rows to make problems of, and whether they are those of `split` alone."""
    if isinstance(config.split, str) and config.split != split:
        raise UserError(f"{config.path}: has no {split} split, all of it is `split: {config.split}`")
    if isinstance(config, JsonlProblems):
        rows = read_rows(config.path.replace("{split}", split), config.records)
        if "{split}" not in config.path:
            return rows, False
        # A file named after its split says nothing about the task; its folder does.
        return (replace(row, stem=Path(config.path).parent.name) if row.stem == split else row for row in rows), True
    if split not in config.split_names:
        raise UserError(f"{config.path}: split_names does not say what the {split} split is called there")
    own = config.split_names.get("train") != config.split_names.get("test")
    return _dataset_rows(config, config.split_names[split]), own


def _dataset_rows(config: DatasetProblems, split_name: str) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        if source_commit(config):
            rows = load_rows(config.path, config.revision, config.name, split_name, config.data_files)
        else:
            rows = load_dataset(
                config.path, config.name, split=split_name, revision=config.revision, data_files=config.data_files
            )
    except UserError:
        raise
    except Exception as error:  # `datasets` raises a dozen types of its own and of its readers for one wrong word
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"dataset {config.path!r} (name {config.name!r}, split {split_name!r}): {reason}") from error
    stem = config.name or config.path.rstrip("/").rsplit("/", 1)[-1]
    for index, data in enumerate(rows):
        yield Row(f"{config.path}[{split_name}] row {index}", stem, named_values(dict(data), rows.features))


def _describer(tasks: set[str], source: str | dict[str, str] | DescriptionFile) -> Callable[[Problem], Problem]:
    """Return what gives a problem that has no description of its own the one of its task."""
    if isinstance(source, DescriptionFile):
        described = source.load()
    elif isinstance(source, dict):
        described = source
        for task in described:
            if task not in tasks:
                raise UserError(f"task_descriptions: no problem has the task {task!r}{nearest(task, tasks)}")
    else:
        described = dict.fromkeys(tasks, source)

    def describe(problem: Problem) -> Problem:
        if problem.task_description:
            return problem
        return replace(problem, task_description=described.get(problem.task, ""))

    return describe
