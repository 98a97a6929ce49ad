"""How encoded sequences are arranged in a batch: padded to a rectangle, or flat, one after the other.

A layout changes the cost of a step and never its losses; nothing outside this module knows which one is in use.
Flat batches (packed rows, or padding-free ones) tell their sequences apart by position ids, as TRL's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from toolkit.encoding import COLUMNS, SOFT_COLUMNS
from toolkit.trl_seams import DataCollatorForLanguageModeling, pack_dataset, pad

if TYPE_CHECKING:
    from datasets import Dataset

_FILLED_WITH_ZERO = ("weights", "counts", "views")


@dataclass
class WeightedCollator:
    """Arrange encoded sequences as a batch, weights, counts and view indices beside their tokens.

    A token that weighs nothing has the label -100, so the head never projects it.

    Attributes:
        pad_token_id: Fills the rectangle; masked out everywhere.
        flat: One row of all sequences instead of a padded rectangle.
        pad_to_multiple_of: Rounds the length of a batch up.
    """

    pad_token_id: int
    flat: bool = False
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        self._tokens = DataCollatorForLanguageModeling(
            self.pad_token_id, padding_free=self.flat, pad_to_multiple_of=self.pad_to_multiple_of
        )

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `input_ids`, `labels`, `weights`, `counts`, `views` of shape (B, T), and attention or positions.

        Of a stage with soft targets also `soft_ids` and `soft_probs` of shape (B, T, K), filled up with probability 0.
        """
        for example in examples:
            example["labels"] = [
                token if weight else -100
                for token, weight in zip(example["input_ids"], example["weights"], strict=True)
            ]
        batch: dict[str, Any] = self._tokens(examples)
        soft = [name for name in SOFT_COLUMNS if name in examples[0]]
        longest = max((len(row) for name in soft for example in examples for row in example[name]), default=0)
        for name in (*_FILLED_WITH_ZERO, *soft):
            tensors = [
                torch.tensor(_filled_rows(example[name], longest) if name in soft else example[name])
                for example in examples
            ]
            if self.flat:
                tensors = [torch.cat(tensors)]
            batch[name] = pad(
                tensors, padding_value=0, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of
            )
        return batch


def _filled_rows(rows: list[list[float]], length: int) -> list[list[float]]:
    """Return rows filled up with 0 to one length."""
    return [[*row, *[0] * (length - len(row))] for row in rows]


def filled(columns: Mapping[str, list[Any]], multiple: int) -> dict[str, list[Any]]:
    """Complete encoded sequences to a multiple of some number, by ones that weigh nothing and count for nothing.

    Several processes take batches of one size; short of sequences, the last ones would see and count some twice.

    Args:
        columns: Columns of an encoded dataset, not empty.
        multiple: Sequences in a batch, times processes.
    """
    missing = -len(columns["input_ids"]) % multiple
    blank = {name: values[0] for name, values in columns.items()}
    blank |= {name: [0.0] * len(blank[name]) for name in ("weights", "counts")}
    return {name: [*values, *[blank[name]] * missing] for name, values in columns.items()}


def pack(dataset: Dataset, max_length: int, seed: int) -> Dataset:
    """Pack sequences into rows of at most `max_length` tokens, best fit first, without cutting any.

    Shuffled before packing, so that what shares a row is not what stood together in the dataset.
    """
    names = [name for name in (*COLUMNS, *SOFT_COLUMNS) if name in dataset.column_names]
    shuffled = dataset.select_columns(names).shuffle(seed=seed).flatten_indices()
    return pack_dataset(shuffled, max_length, "bfd", {"desc": "Packing"})
