"""The `datasets` side of every builder: three configs over records that are computed from problems and a store.

`datasets` patches `open`, `os.path` and the like in the module of every builder class (for streaming), so
nothing in such a module touches files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from dataset_builders.asking import Ask, Asker, Outcome, Record, Rounds, Step
from dataset_builders.chains import question_columns
from dataset_builders.columns import QUESTION, Columns, features, text_paths
from dataset_builders.settings import BuilderSettings
from toolkit.problem import Problem
from toolkit.problem_sources import open_problems

if TYPE_CHECKING:
    from pathlib import Path


def problems_to_ask(settings: BuilderSettings) -> tuple[Sequence[Problem], Sequence[Problem]]:
    """Return the problems to ask and the held-out ones; ready-made chains bring the former themselves."""
    source = settings.problems
    if source is None:
        return [], []
    train = open_problems(source, "train") if settings.teacher is not None else []
    # A source that is all training data has no test split to ask for.
    return train, [] if getattr(source, "split", None) == "train" else open_problems(source, "test")


@dataclass
class CotsConfig(datasets.BuilderConfig):
    """What a builder reads.

    Attributes:
        outcome: The records.
        test: Held-out problems.
    """

    outcome: Outcome = field(default_factory=Outcome)
    test: Sequence[Problem] = ()


class CotsBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders; configs `default` (train, unpaired, rejected), `sft` (train) and `evaluation` (test).

    `sft` is for plain TRL, which cannot filter: of records that say whether they are right it has the right ones only.
    A split without rows is left out, since `load_dataset` fails on an empty one.

    Args:
        outcome: Records by split.
        test: Held-out problems.
        config_name: `default`, `sft` or `evaluation`.
        hash: Digest of everything the records depend on; `datasets` reuses what it has under the same one.
        cache_dir: Where `datasets` keeps the Arrow files; its usual place where None.
    """

    VERSION = datasets.Version("1.0.0")
    # What each version of the builder changed about its records, the newest first; a version of one's own has an entry.
    CHANGES: ClassVar[Mapping[str, str]] = {"1.0.0": "The first version."}
    BUILDER_CONFIG_CLASS = CotsConfig
    SETTINGS: ClassVar[type[BuilderSettings]]
    WHAT: ClassVar[str]
    RECORD: ClassVar[Columns]
    SFT_RECORD: ClassVar[Columns]
    EVALUATION: ClassVar[Columns] = QUESTION
    COLUMNS: ClassVar[set[str]]
    # Further columns that are published where a setting asks for them, by the setting's dotted name.
    OPTIONAL: ClassVar[dict[str, Columns]] = {}
    CHAINS: ClassVar[tuple[str, ...]]
    # Rows of `sft` that a right record makes.
    SFT_ROWS: ClassVar[int] = 1

    def __init__(
        self,
        outcome: Outcome,
        test: Sequence[Problem] = (),
        config_name: str = "default",
        hash: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(
            cache_dir=cache_dir, config_name=config_name, config_id=config_name, hash=hash, outcome=outcome, test=test
        )

    @classmethod
    def inputs(cls, settings: Any, hub_dir: Path) -> tuple[Sequence[Any], Sequence[Problem]]:
        """Return what `rounds` and `records` go through, mostly the problems to ask, and the held-out problems.

        Args:
            settings: The builder's settings.
            hub_dir: Root of the local hub, for a builder that starts from what was published before.
        """
        return problems_to_ask(settings)

    @classmethod
    def view_columns(cls) -> dict[str, str]:
        """Return the columns that views may take, each with the setting that it needs, or none where it needs none."""
        asked = {path: setting for setting, columns in cls.OPTIONAL.items() for path in text_paths(columns)}
        return dict.fromkeys(cls.COLUMNS, "") | asked

    @classmethod
    def tables(cls, outcome: Outcome) -> dict[str, Columns]:
        """Return the columns of each config, for the records of an outcome."""
        return {"default": cls.RECORD, "sft": cls.SFT_RECORD, "evaluation": cls.EVALUATION}

    @classmethod
    def asks(cls, settings: Any) -> tuple[Ask, ...]:
        """Return what `rounds` asks of a teacher for each record of its first round, in order; the estimate's basis."""
        return ()

    @staticmethod
    @abstractmethod
    def rounds(problems: Sequence[Any], asker: Asker, settings: Any) -> Rounds:
        """Yield what to ask about `inputs`, round by round, each once the store has the answers to all before it."""

    @staticmethod
    @abstractmethod
    def records(problems: Sequence[Any], asker: Asker, settings: Any, steps: list[Step]) -> Iterator[Record]:
        """Yield the records of `inputs` in order, those to be rejected with their `reason`; asks nobody.

        Args:
            problems: From `inputs`.
            asker: Reads the answers.
            settings: The builder's settings.
            steps: Gets the filters, which are counted once the last record is there.
        """

    @staticmethod
    @abstractmethod
    def sft(record: Record) -> Record:
        """Return a record as prompt and completion."""

    @classmethod
    def is_right(cls, record: Record) -> bool:
        """Return whether a record belongs into `sft`: it is right, or its builder keeps nothing else."""
        return record.get("correct", True) is True

    @classmethod
    def sft_rows(cls, record: Record) -> Sequence[Record]:
        """Return the `SFT_ROWS` rows of `sft` that a right record makes."""
        return (cls.sft(record),)

    @staticmethod
    def held_out(problem: Problem) -> Record:
        """Return a held-out problem as a row of `evaluation`."""
        return question_columns(problem, problem.id)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=features(self.tables(self.config.outcome)[self.config.name]))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        outcome: Outcome = self.config.outcome
        rows: dict[str, tuple[Sequence[Any], Callable[[Any], Sequence[Record]]]] = {
            "train": (outcome.train, self._right_sft_rows if self.config.name == "sft" else _as_it_is),
            "unpaired": (outcome.unpaired, _as_it_is),
            "rejected": (outcome.rejected, _as_it_is),
            "test": (self.config.test, lambda problem: (self.held_out(problem),)),
        }
        splits = {"default": ("train", "unpaired", "rejected"), "sft": ("train",), "evaluation": ("test",)}[
            self.config.name
        ]
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"items": rows[split][0], "rows": rows[split][1]})
            for split in splits
            if rows[split][0]
        ]

    def _right_sft_rows(self, record: Record) -> Sequence[Record]:
        return self.sft_rows(record) if self.is_right(record) else ()

    def _generate_examples(
        self, items: Sequence[Any], rows: Callable[[Any], Sequence[Record]]
    ) -> Iterator[tuple[str, Record]]:
        for made in chain.from_iterable(map(rows, items)):
            yield made["id"], made


def _as_it_is(record: Record) -> tuple[Record]:
    return (record,)
