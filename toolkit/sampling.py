"""The order in which a stage's rows are trained on: the same on every process, and each row once in an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

from toolkit.selection import balanced_draw

if TYPE_CHECKING:
    from toolkit.recipe import Stage


class EpochSampler(Sampler[int]):
    """Positions of an epoch in the order of another sampler, and behind them those of the blanks.

    The order is a function of (seed, epoch) alone, and that of plain TRL training on one process. accelerate gives its
    samplers the epoch too, but on several processes it does not reach them in an epoch that is resumed.

    Args:
        order: Sampler of the rows; what it draws, it draws anew from the seed in every epoch.
        seed: Of the order.
        blanks: Positions of the blanks: last, so that no step is made of them alone.
    """

    def __init__(self, order: Sampler[int], seed: int, blanks: range) -> None:
        self.order = order
        self._seed = seed
        self._blanks = blanks
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.order) + len(self._blanks)  # type: ignore[arg-type]  # all that are used have a length

    def __iter__(self) -> Iterator[int]:
        if hasattr(self.order, "generator"):
            self.order.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from self.order
        yield from self._blanks

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch = epoch
        if isinstance(self.order, BalancedSampler):
            self.order.set_epoch(epoch)


class BalancedSampler(Sampler[int]):
    """Positions of an epoch in random order: of balanced views one record's of each question, of the others all.

    SCoTD's released code samples so (arXiv 2306.14050): a question with thirty right chains weighs as much as one
    with two. An epoch is a function of (seed, epoch) alone, so a resumed run goes on with the order it had.

    Args:
        questions: Question of each sequence.
        records: Record of each sequence.
        views: Position of its view in the stage.
        seeds: Seed of the draw, for each position of a balanced view.
        seed: Of the order.
    """

    def __init__(
        self,
        questions: Sequence[str],
        records: Sequence[str],
        views: Sequence[int],
        seeds: Mapping[int, int],
        seed: int,
    ) -> None:
        self._always: list[int] = []
        # view -> question -> record -> its sequence
        self._drawn: dict[int, dict[str, dict[str, int]]] = {}
        for position, (question, record, view) in enumerate(zip(questions, records, views, strict=True)):
            if view in seeds:
                self._drawn.setdefault(view, {}).setdefault(question, {})[record] = position
            else:
                self._always.append(position)
        self._seeds = seeds
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._always) + sum(len(questions) for questions in self._drawn.values())

    def __iter__(self) -> Iterator[int]:
        positions = list(self._epoch_positions(self._epoch))
        generator = torch.Generator().manual_seed(_mixed(self._seed, self._epoch))
        yield from (positions[index] for index in torch.randperm(len(positions), generator=generator).tolist())

    @property
    def shares(self) -> dict[int, float]:
        """How often an epoch has each position, on average."""
        drawn = [records for questions in self._drawn.values() for records in questions.values()]
        return dict.fromkeys(self._always, 1.0) | {
            position: 1 / len(records) for records in drawn for position in records.values()
        }

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the data loader does."""
        self._epoch = epoch

    def _epoch_positions(self, epoch: int) -> Iterator[int]:
        yield from self._always
        for view, questions in self._drawn.items():
            for question, records in questions.items():
                yield records[balanced_draw(self._seeds[view], epoch, question, list(records))]


def balanced_seeds(stage: Stage) -> dict[int, int]:
    """Return the seed of each balanced view of a stage by its position."""
    views = stage.views.values()
    return {index: view.select.seed for index, view in enumerate(views) if view.select.draw == "balanced"}


def _mixed(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")
