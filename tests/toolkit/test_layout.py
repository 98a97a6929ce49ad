"""Layouts: whatever the arrangement, each token keeps its weight, count, view and place in its sequence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.encoding import COLUMNS, SOFT_COLUMNS
from toolkit.layout import WeightedCollator, filled, is_blank, pack

PAD = 0
LONGEST = 12

# Weights that float32 holds exactly, so that they can be compared after becoming tensors.
_token = st.tuples(
    st.integers(1, 50), st.sampled_from([0.0, 0.25, 1.0, -0.5]), st.sampled_from([0.0, 1.0, 0.5]), st.integers(0, 2)
)
_sequences = st.lists(st.lists(_token, min_size=1, max_size=LONGEST), min_size=1, max_size=8)
Tokens = list[tuple[int, float, float, int]]


def dataset(sequences: list[Tokens]) -> Dataset:
    return Dataset.from_dict(
        {name: [[token[i] for token in tokens] for tokens in sequences] for i, name in enumerate(COLUMNS)}
    )


def rows_of(encoded: Dataset) -> list[Tokens]:
    return [list(zip(*(row[name] for name in COLUMNS), strict=True)) for row in encoded]


def unpacked(packed: Dataset) -> list[Tokens]:
    """Return the sequences that the rows of a packed dataset are made of."""
    sequences = []
    for row, lengths in zip(rows_of(packed), packed["seq_lengths"], strict=True):
        assert sum(lengths) == len(row)
        for length in lengths:
            sequences.append(row[:length])
            row = row[length:]
    return sequences


def collated(rows: Dataset, **settings: Any) -> dict[str, Any]:
    return WeightedCollator(PAD, **settings)([dict(row) for row in rows])


def tokens_of(batch: dict[str, Any]) -> Counter[tuple[int, float, float, int]]:
    """Return how often each (token, weight, count, view) stands in a batch, padding aside."""
    columns = [batch[name].flatten().tolist() for name in COLUMNS]
    return Counter(token for token in zip(*columns, strict=True) if token[0] != PAD)


# --- packing


@settings(max_examples=40, deadline=None)
@given(_sequences)
def test_packing_keeps_every_sequence_whole(sequences: list[Tokens]) -> None:
    packed = pack(dataset(sequences), max_length=16, seed=0)
    assert Counter(map(tuple, unpacked(packed))) == Counter(map(tuple, sequences))


@settings(max_examples=40, deadline=None)
@given(_sequences)
def test_no_packed_row_is_longer_than_allowed(sequences: list[Tokens]) -> None:
    assert all(len(row) <= 16 for row in pack(dataset(sequences), max_length=16, seed=0)["input_ids"])


def test_packing_fills_rows() -> None:
    packed = pack(dataset([[(1, 1.0, 1.0, 0)] * 4] * 8), max_length=16, seed=0)
    assert [len(row) for row in packed["input_ids"]] == [16, 16]


def test_neighbours_in_the_dataset_are_parted_the_same_way_every_time() -> None:
    sequences = [[(i + 1, 1.0, 1.0, 0)] * 4 for i in range(32)]
    first, again = (pack(dataset(sequences), max_length=8, seed=3)["input_ids"] for _ in range(2))
    assert list(first) == list(again)
    assert [row[0] for row in first] != sorted(row[0] for row in first)


# --- batches


@settings(max_examples=40, deadline=None)
@given(_sequences, st.booleans(), st.sampled_from([None, 8]))
def test_a_batch_holds_every_token_with_its_weight_count_and_view(
    sequences: list[Tokens], flat: bool, multiple: int | None
) -> None:
    batch = collated(dataset(sequences), flat=flat, pad_to_multiple_of=multiple)
    assert tokens_of(batch) == Counter(token for tokens in sequences for token in tokens)


@settings(max_examples=40, deadline=None)
@given(_sequences)
def test_a_batch_of_packed_rows_holds_the_same_tokens(sequences: list[Tokens]) -> None:
    batch = collated(pack(dataset(sequences), max_length=16, seed=0), flat=True)
    assert tokens_of(batch) == Counter(token for tokens in sequences for token in tokens)


@settings(max_examples=40, deadline=None)
@given(_sequences, st.booleans())
def test_exactly_the_tokens_that_weigh_nothing_are_not_projected(sequences: list[Tokens], flat: bool) -> None:
    batch = collated(dataset(sequences), flat=flat)
    # A flat batch has no label for the first token of a sequence either, which nothing predicts.
    starts = batch["position_ids"] == 0 if flat else torch.zeros_like(batch["labels"], dtype=torch.bool)
    expected = torch.where((batch["weights"] != 0) & ~starts, batch["input_ids"], -100)
    assert torch.equal(torch.where(starts, -100, batch["labels"]), expected)


FIRST = [(5, 0.0, 0.0, 1), (6, 1.0, 1.0, 1), (7, -0.5, 1.0, 1)]
SECOND = [(8, 0.0, 1.0, 2), (9, 0.25, 0.5, 2)]


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in batch.items() if isinstance(value, torch.Tensor)}


def test_a_padded_batch_by_hand() -> None:
    assert plain(collated(dataset([FIRST, SECOND]))) == {
        "input_ids": [[5, 6, 7], [8, 9, PAD]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[-100, 6, 7], [-100, 9, -100]],
        "weights": [[0.0, 1.0, -0.5], [0.0, 0.25, 0.0]],
        "counts": [[0.0, 1.0, 1.0], [1.0, 0.5, 0.0]],
        "views": [[1, 1, 1], [2, 2, 0]],
        "rows": 2,
        "tokens": 5,
    }
    wide = plain(collated(dataset([FIRST]), pad_to_multiple_of=4))
    assert (wide["input_ids"], wide["weights"]) == ([[5, 6, 7, PAD]], [[0.0, 1.0, -0.5, 0.0]])
    assert WeightedCollator(9)([dict(row) for row in dataset([FIRST, SECOND])])["input_ids"].tolist()[1] == [8, 9, 9]


def test_a_flat_batch_by_hand() -> None:
    flat = plain(collated(dataset([FIRST, SECOND]), flat=True))
    assert "attention_mask" not in flat
    assert (flat["input_ids"], flat["position_ids"]) == ([[5, 6, 7, 8, 9]], [[0, 1, 2, 0, 1]])
    assert flat["labels"] == [[-100, 6, 7, -100, 9]]
    assert (flat["weights"], flat["views"]) == ([[0.0, 1.0, -0.5, 0.0, 0.25]], [[1, 1, 1, 2, 2]])
    assert (flat["rows"], flat["tokens"]) == (2, 5)


def test_a_packed_row_in_a_padded_batch_is_its_sequences_again() -> None:
    packed = pack(dataset([FIRST, SECOND]), 8, seed=0)
    assert len(packed) == 1
    batch = plain(collated(packed))
    assert sorted(batch["input_ids"]) == [[5, 6, 7], [8, 9, PAD]]
    assert (batch["rows"], batch["tokens"]) == (1, 5)


def test_rows_are_filled_up_to_a_multiple_by_blanks_that_are_no_rows_and_no_tokens() -> None:
    rows = dataset([FIRST, SECOND, FIRST])
    assert filled(rows, 3) is rows
    assert len(filled(rows, 1)) == 3
    full = filled(rows, 4)
    assert rows_of(full) == [FIRST, SECOND, FIRST, [(5, 0.0, 0.0, 1)]]
    assert len(filled(rows, 7)) == 7
    assert [is_blank(row) for row in full] == [False, False, False, True]
    batch = plain(collated(full))
    assert (batch["rows"], batch["tokens"], batch["labels"][3]) == (3, 8, [-100, -100, -100])
    assert plain(collated(full.select([3, 3])))["tokens"] == 0


def test_packed_rows_are_filled_up_by_packed_blanks() -> None:
    packed = pack(dataset([FIRST, SECOND]), 8, seed=0)
    full = filled(packed, 2)
    assert (full["seq_lengths"][1], full["weights"][1], full["counts"][1]) == ([1], [0.0], [0.0])
    assert full.features == packed.features
    flat = plain(collated(full, flat=True))
    assert (flat["rows"], flat["tokens"], len(flat["input_ids"][0])) == (1, 5, 6)


def test_soft_targets_are_filled_up_with_probability_0() -> None:
    rows = dataset([FIRST[:2], SECOND[:1]]).to_dict()
    rows |= {"soft_ids": [[[5], [6, 7]], [[8]]], "soft_probs": [[[1.0], [0.5, 0.25]], [[1.0]]]}
    batch = plain(collated(Dataset.from_dict(rows)))
    assert batch["soft_ids"] == [[[5, 0], [6, 7]], [[8, 0], [0, 0]]]
    assert batch["soft_probs"] == [[[1.0, 0.0], [0.5, 0.25]], [[1.0, 0.0], [0.0, 0.0]]]


def test_a_padded_batch_masks_its_padding() -> None:
    batch = collated(dataset([[(5, 1.0, 1.0, 0)] * 2, [(6, 1.0, 1.0, 1)] * 3]))
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["weights"].tolist() == batch["counts"].tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    assert batch["input_ids"][0, 2] == PAD


@pytest.mark.parametrize("packed", [False, True], ids=["padding-free", "packed"])
def test_positions_of_a_flat_batch_start_anew_with_every_sequence(packed: bool) -> None:
    rows = dataset([[(5, 1.0, 1.0, 0)] * 2, [(6, 1.0, 1.0, 1)] * 3])
    batch = collated(pack(rows, 8, seed=0) if packed else rows, flat=True)
    assert batch["input_ids"].shape == (1, 5)
    assert sorted(batch["position_ids"][0].tolist()) == [0, 0, 1, 1, 2]
    by_sequence = {5: [0, 1], 6: [0, 1, 2]}
    for token, positions in by_sequence.items():
        assert batch["position_ids"][batch["input_ids"] == token].tolist() == positions


# --- soft targets


def softened(sequences: list[Tokens]) -> Dataset:
    """Return the sequences with soft targets of one to three ids, which a token's id gives away."""
    rows = dataset(sequences).to_dict()
    rows["soft_ids"] = [[[token + k for k in range(1 + token % 3)] for token in ids] for ids in rows["input_ids"]]
    rows["soft_probs"] = [
        [[0.5 ** (k + 1) for k in range(1 + token % 3)] for token in ids] for ids in rows["input_ids"]
    ]
    return Dataset.from_dict(rows)


@settings(max_examples=40, deadline=None)
@given(_sequences, st.booleans(), st.booleans(), st.sampled_from([None, 8]))
def test_soft_targets_stay_with_their_tokens(
    sequences: list[Tokens], packed: bool, flat: bool, multiple: int | None
) -> None:
    rows = softened(sequences)
    batch = collated(pack(rows, 16, seed=0) if packed else rows, flat=packed or flat, pad_to_multiple_of=multiple)
    ids, probs = (batch[name] for name in SOFT_COLUMNS)
    assert int((batch["input_ids"] != PAD).sum()) > 0
    for token, of_token, chances in zip(
        batch["input_ids"].flatten(), ids.flatten(0, 1), probs.flatten(0, 1), strict=True
    ):
        length = 1 + int(token) % 3 if token != PAD else 0
        assert of_token[:length].tolist() == [int(token) + k for k in range(length)]
        assert chances.tolist() == [0.5 ** (k + 1) for k in range(length)] + [0.0] * (len(chances) - length)


@settings(max_examples=15, deadline=None)
@given(_sequences)
def test_packed_rows_are_unpacked_for_a_rectangle(sequences: list[Tokens]) -> None:
    packed = pack(dataset(sequences), max_length=16, seed=0)
    batch = collated(packed)
    assert tokens_of(batch) == Counter(token for tokens in sequences for token in tokens)
    assert sorted(batch["attention_mask"].sum(dim=1).tolist()) == sorted(map(len, sequences))
    assert batch["rows"] == sum(len(row) > 1 for row in packed["input_ids"])


# --- blanks

SEQUENCES: list[Tokens] = [[(1, 0.0, 0.0, 1), (2, 0.5, 1.0, 1)], [(3, 0.0, 0.0, 0), (4, 1.0, 1.0, 0), (5, 1.0, 1.0, 0)]]


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(("multiple", "drawn", "blanks"), [(2, None, 0), (4, None, 2), (3, None, 1), (4, 5, 3)])
def test_a_dataset_is_filled_up_behind_its_rows(is_packed: bool, multiple: int, drawn: int | None, blanks: int) -> None:
    rows = dataset(SEQUENCES)
    rows = pack(rows, max_length=3, seed=0) if is_packed else rows
    whole = filled(rows, multiple, drawn)
    assert whole.to_list()[:2] == rows.to_list()
    assert len(whole) == 2 + blanks
    assert all(sum(row["weights"]) == sum(row["counts"]) == 0 for row in whole.to_list()[2:])


@pytest.mark.parametrize("is_flat", [False, True])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_batch_counts_no_blank_and_no_padding(is_flat: bool, is_packed: bool) -> None:
    rows = pack(dataset(SEQUENCES), max_length=8, seed=0) if is_packed else dataset(SEQUENCES)
    batch = collated(filled(rows, 4), flat=is_flat, pad_to_multiple_of=16)
    assert (batch["rows"], batch["tokens"]) == (len(rows), 5)
    assert batch["weights"].sum() == 2.5
    assert batch["counts"].sum() == 3
    assert (batch["labels"] != -100).sum() == 3


def test_a_batch_of_blanks_alone_scores_nothing() -> None:
    blanks = filled(dataset(SEQUENCES), 4).select([2, 3])
    batch = collated(blanks)
    assert (batch["rows"], batch["tokens"]) == (0, 0)
    assert not (batch["labels"] != -100).any()


def test_soft_targets_are_filled_up_too() -> None:
    soft = {name: [[[2], [3]], [[4], [5], [6]]] for name in SOFT_COLUMNS}
    rows = Dataset.from_dict(dataset(SEQUENCES).to_dict() | soft)
    assert collated(filled(rows, 3))["soft_ids"].shape == (3, 3, 1)
