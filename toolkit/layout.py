"""How encoded sequences are arranged in a batch: padded to a rectangle, or flat, one after the other.

A layout changes the cost of a step and never its losses. Flat batches (packed rows, or padding-free ones) tell their
sequences apart by position ids, as TRL's do; whether a student heeds these is `layout_probe`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import pad

from toolkit.encoding import COLUMNS, SOFT_COLUMNS

if TYPE_CHECKING:
    from datasets import Dataset

_FILLED_WITH_ZERO = ("weights", "counts", "views")


@dataclass
class WeightedCollator:
    """Arrange encoded sequences as a batch, weights, counts and view indices beside their tokens.

    A token that weighs nothing has the label -100, so the head never projects it.

    Attributes:
        pad_token_id: Fills the rectangle; masked out everywhere.
        flat: One row of all sequences instead of a padded rectangle. Packed rows are unpacked for a rectangle, so that
            a student that cannot be trained flat takes the same steps.
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
        `rows` (rows of the dataset) and `tokens` of the batch are numbers; blanks and padding are not among them.
        """
        read = [example for example in examples if not is_blank(example)]
        sizes = {"rows": len(read), "tokens": sum(len(example["input_ids"]) for example in read)}
        if not self.flat:
            examples = [sequence for example in examples for sequence in unpacked(example)]
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
        return batch | {name: torch.tensor(size) for name, size in sizes.items()}


def unpacked(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sequences of a packed row; one that is not packed is its own."""
    if "seq_lengths" not in row:
        return [row]
    ends = list(accumulate(row["seq_lengths"], initial=0))
    columns = {name: tokens for name, tokens in row.items() if name != "seq_lengths"}
    return [{name: tokens[start:end] for name, tokens in columns.items()} for start, end in pairwise(ends)]


def _filled_rows(rows: list[list[float]], length: int) -> list[list[float]]:
    """Return rows filled up with 0 to one length."""
    return [[*row, *[0] * (length - len(row))] for row in rows]


def is_blank(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of those that fill a dataset up: a single token, which nothing predicts."""
    return len(row["input_ids"]) == 1


def filled(dataset: Dataset, multiple: int, drawn: int | None = None) -> Dataset:
    """Complete encoded rows to a multiple of some number, by blanks: one token that weighs and counts for nothing.

    Several processes take batches of one size; short of rows, accelerate would give the first ones of an epoch again.

    Args:
        dataset: Encoded rows, packed or not; not empty.
        multiple: Rows in a batch, times processes.
        drawn: Rows of an epoch, all of the dataset where None.
    """
    from datasets import Dataset, concatenate_datasets

    missing = -(len(dataset) if drawn is None else drawn) % multiple
    if not missing:
        return dataset
    blank = {name: value[:1] if isinstance(value, list) else value for name, value in dataset[0].items()}
    blank |= {"weights": [0.0], "counts": [0.0]}
    if "seq_lengths" in blank:
        blank["seq_lengths"] = [1]
    return concatenate_datasets([dataset, Dataset.from_list([blank] * missing, features=dataset.features)])


def pack(dataset: Dataset, max_length: int, seed: int) -> Dataset:
    """Pack sequences into rows of at most `max_length` tokens, best fit first, without cutting any.

    Shuffled before packing, so that what shares a row is not what stood together in the dataset.
    """
    names = [name for name in (*COLUMNS, *SOFT_COLUMNS) if name in dataset.column_names]
    shuffled = dataset.select_columns(names).shuffle(seed=seed).flatten_indices()
    return pack_dataset(shuffled, max_length, "bfd", {"desc": "Packing"})
