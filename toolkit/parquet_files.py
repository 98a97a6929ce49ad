"""Parquet files of what a dataset builder wrote, made in the memory of one row group.

A `datasets.Dataset` is one map of its Arrow files, of which every page that was looked at stays with the process: a
million rows would take as much memory as they are long. Here those files are read as streams.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets
    import pyarrow

_SHARD_BYTES = 500_000_000
# Uncompressed. `datasets` aims at 100 MB, of which twice as much is in memory while it is written; files of these are
# one or two percent larger.
_ROW_GROUP_BYTES = 16_000_000


def write_split(prepared: datasets.DatasetBuilder, split: str, into: Path) -> None:
    """Write a split as `Dataset.to_parquet` would, in smaller row groups where it is large.

    Args:
        prepared: A builder after `download_and_prepare`.
        split: One of its splits, not empty.
        into: Folder for `SPLIT-00000-of-00001.parquet` and, above 500 MB, more of them.
    """
    from datasets import config
    from datasets.arrow_writer import get_parquet_column_options
    from pyarrow import parquet, system_memory_pool

    size = prepared.info.splits[split]
    shards = max(1, math.ceil(size.num_bytes / _SHARD_BYTES))
    group = max(1, size.num_examples * _ROW_GROUP_BYTES // max(1, size.num_bytes))
    lengths = [_split_up(size.num_examples // shards + (i < size.num_examples % shards), group) for i in range(shards)]
    tables = _cut(_batches(prepared, split), chain.from_iterable(lengths))
    features = prepared.info.features
    schema, chunking = features.arrow_schema, config.DEFAULT_CDC_OPTIONS
    columns = get_parquet_column_options(features, schema)
    for index, groups in enumerate(lengths):
        with parquet.ParquetWriter(
            into / f"{split}-{index:05d}-of-{shards:05d}.parquet",
            schema,
            use_content_defined_chunking=chunking,
            write_page_index=True,
            memory_pool=system_memory_pool(),
            **columns,
        ) as writer:
            for table in islice(tables, len(groups)):
                writer.write_table(table)
            writer.add_key_value_metadata({"content_defined_chunking": json.dumps(chunking)})


def _split_up(rows: int, group: int) -> list[int]:
    return [min(group, rows - start) for start in range(0, rows, group)]


def _batches(prepared: datasets.DatasetBuilder, split: str) -> Iterator[pyarrow.RecordBatch]:
    """Yield the record batches of a split's Arrow files, one in memory at a time.

    The pool of the system gives back what a batch took; Arrow's own one keeps twice as much for later.
    """
    import pyarrow
    from datasets.naming import filenames_for_dataset_split

    lengths = prepared.info.splits[split].shard_lengths
    names = filenames_for_dataset_split(prepared.cache_dir, prepared.dataset_name, split, "arrow", lengths)
    for name in names:
        with (
            pyarrow.OSFile(name) as file,
            pyarrow.ipc.open_stream(file, memory_pool=pyarrow.system_memory_pool()) as batches,
        ):
            yield from batches


def _cut(batches: Iterator[pyarrow.RecordBatch], lengths: Iterable[int]) -> Iterator[pyarrow.Table]:
    """Yield tables of so many rows each, of batches that hold as many or more in all."""
    import pyarrow

    rest: pyarrow.RecordBatch | None = None
    for length in lengths:
        parts: list[pyarrow.RecordBatch] = []
        while length:
            batch = next(batches) if rest is None else rest
            parts.append(batch.slice(0, length))
            length -= parts[-1].num_rows
            rest = batch.slice(parts[-1].num_rows) if parts[-1].num_rows < batch.num_rows else None
        yield pyarrow.Table.from_batches(parts)
