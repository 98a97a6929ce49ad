from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.prepared import prepared
from toolkit import parquet_files

datasets.disable_progress_bars()
VALUES = {
    "n": range(900),
    "nested": [{"a": ["text"] * (i % 3), "b": None if i % 2 else i / 3} for i in range(900)],
}
DATASET = datasets.Dataset.from_dict(VALUES)


def built(folder: Path, batch: int = 100) -> datasets.DatasetBuilder:
    """Return a builder that has written the dataset, so many rows at a time."""
    return prepared({"default": {"train": DATASET}}, folder, rows=batch)["default"]


def written(builder: datasets.DatasetBuilder, folder: Path) -> list[Path]:
    into = folder / "parquet"
    into.mkdir()
    parquet_files.write_split(builder, "train", into)
    return sorted(into.iterdir())


def rows(files: list[Path]) -> list[Any]:
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def group_rows(file: Path) -> list[int]:
    found = parquet.ParquetFile(file).metadata
    return [found.row_group(index).num_rows for index in range(found.num_row_groups)]


@pytest.mark.parametrize("batch", [100, 1000])
def test_row_groups_are_written_one_by_one_and_as_datasets_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(datasets.config, "MAX_ROW_GROUP_SIZE", "4KB")
    monkeypatch.setattr(parquet_files, "_ROW_GROUP_BYTES", 4000)
    builder = built(tmp_path, batch)
    builder.as_dataset("train").to_parquet(tmp_path / "expected.parquet")

    (file,) = written(builder, tmp_path)

    assert file.read_bytes() == (tmp_path / "expected.parquet").read_bytes()
    assert len(group_rows(file)) > 3


def test_a_large_split_is_in_several_files_of_nearly_the_same_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = built(tmp_path)
    size = builder.info.splits["train"].num_bytes
    monkeypatch.setattr(parquet_files, "_SHARD_BYTES", size // 6)
    monkeypatch.setattr(parquet_files, "_ROW_GROUP_BYTES", size // 9 + 1)  # of a hundred rows

    files = written(builder, tmp_path)

    assert [file.name for file in files] == [f"train-{index:05d}-of-00007.parquet" for index in range(7)]
    assert [group_rows(file) for file in files] == [[100, 29]] * 4 + [[100, 28]] * 3
    assert rows(files) == DATASET.to_list()


def test_what_a_builder_has_in_several_files_of_its_own_is_one_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", "3KB")
    builder = built(tmp_path, 50)
    assert len(builder.info.splits["train"].shard_lengths) > 3

    files = written(builder, tmp_path)

    assert len(files) == 1
    assert rows(files) == DATASET.to_list()


@given(batches=st.lists(st.integers(0, 5)), lengths=st.lists(st.integers(1, 7)))
def test_tables_have_the_asked_lengths_and_every_row_in_order(batches: list[int], lengths: list[int]) -> None:
    total = sum(lengths)
    values = iter(range(sum(batches) + total))
    made = [pa.record_batch({"n": pa.array(islice(values, size), pa.int64())}) for size in [*batches, total]]

    tables = list(parquet_files._cut(iter(made), lengths))

    assert [table.num_rows for table in tables] == lengths
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(total))
