"""Prepared `datasets` builders of rows that a test states, as `toolkit.hub.publish_dataset` takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa


class Given(datasets.ArrowBasedBuilder):
    """Writes the tables that it is given, some rows at a time."""

    def __init__(self, splits: Mapping[str, datasets.Dataset], cache_dir: Path, rows: int = 1000) -> None:
        self._splits, self._rows = splits, rows
        # The fingerprint of a dataset made of the same values is the same one.
        names = "-".join(f"{name}{dataset._fingerprint}" for name, dataset in splits.items())
        super().__init__(cache_dir=str(cache_dir), hash=f"{names}-{rows}")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=next(iter(self._splits.values())).features)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=name, gen_kwargs={"name": name}) for name in self._splits]

    def _generate_tables(self, name: str) -> Iterator[tuple[int, pa.Table]]:
        for start in range(0, len(self._splits[name]), self._rows):
            yield start, self._splits[name].data.table.slice(start, self._rows)


def prepared(
    tables: Mapping[str, Mapping[str, datasets.Dataset]], cache_dir: Path, rows: int = 1000
) -> dict[str, datasets.DatasetBuilder]:
    """Return builders of these datasets, by config and split, that have run."""
    builders: dict[str, datasets.DatasetBuilder] = {}
    for config, splits in tables.items():
        builders[config] = Given(splits, cache_dir / "given", rows)
        builders[config].download_and_prepare()
    return builders
