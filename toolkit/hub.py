"""A hub in a folder: `<root>/datasets/<repo_id>/<revision>/` and `<root>/models/<repo_id>/<revision>/`.

Each revision is a folder that `load_dataset` or `from_pretrained` reads as it stands. A revision is written once:
it appears whole or not at all, and never changes afterwards.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.cards import merge
from toolkit.errors import UserError, nearest

if TYPE_CHECKING:
    import datasets
    import pyarrow

Kind = Literal["dataset", "model"]
Change = Literal["schema", "content", "card"]

CARD = "README.md"
_REVISION = re.compile(r"(v?)(\d+)\.(\d+)\.(\d+)")
_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SHARD_BYTES = 500_000_000
# Uncompressed; `datasets` aims at 100 MB, half as much again as a build takes of memory without.
_ROW_GROUP_BYTES = 32_000_000
_COUNTED_ROWS = 10_000
# How a revision came to be: the same data rebuilt from another folder or under newer libraries is no other revision.
_REBUILD = re.compile(r"<!-- generated:rebuild -->.*?<!-- /generated:rebuild -->", re.DOTALL)


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Attributes:
        folder: The revision's folder.
        files: Everything in it, relative to it.
        is_new: False where the same content was there already and nothing was written.
    """

    folder: Path
    files: tuple[str, ...]
    is_new: bool


def folder(root: str | Path, kind: Kind, repo_id: str, revision: str) -> Path:
    """Return where a revision lies, or would.

    Raises:
        UserError: The id is not `name` or `owner/name`, or the revision is not `v1.2.3`.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise UserError(f"repo_id {repo_id!r} must be `name` or `owner/name` of letters, digits, '-', '_' and '.'")
    if not _REVISION.fullmatch(revision):
        raise UserError(f"revision {revision!r} must be a version like v1.0.0")
    return Path(root) / f"{kind}s" / repo_id / revision


def revisions(root: str | Path, kind: Kind, repo_id: str) -> list[str]:
    """Return the revisions of a repository, oldest version first; none where there is no such repository."""
    repository = folder(root, kind, repo_id, "v0.0.0").parent
    names = [path.name for path in repository.glob("*") if path.is_dir() and _REVISION.fullmatch(path.name)]
    return sorted(names, key=_version)


def find(root: str | Path, kind: Kind, repo_id: str, revision: str) -> Path:
    """Return the folder of a revision that exists.

    Raises:
        UserError: There is none; names those there are.
    """
    path = folder(root, kind, repo_id, revision)
    if not path.is_dir():
        known = revisions(root, kind, repo_id)
        what = f"has the revisions {known}{nearest(revision, known)}" if known else "is not there"
        raise UserError(f"no {kind} {repo_id!r} at {revision} under {root}: the repository {what}")
    return path


def publish(
    root: str | Path,
    kind: Kind,
    repo_id: str,
    revision: str,
    write: Callable[[Path], None],
    *,
    accept_other_card: bool = False,
) -> Published:
    """Write a revision, whole or not at all.

    Args:
        root: The hub's folder.
        kind: What is published.
        repo_id: `name` or `owner/name`.
        revision: Version, e.g. `v1.0.0`.
        write: Fills the empty folder it is given. A card among the files is merged with what people wrote into the
            card of this revision, or else of the newest one.
        accept_other_card: Leave a revision that differs in its card alone as it is, instead of refusing.

    Raises:
        UserError: The revision exists with other content; names the next free version.
    """
    target = folder(root, kind, repo_id, revision)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside its target, so that the rename at the end stays within one file system and is atomic.
    staging = Path(tempfile.mkdtemp(prefix=f".{revision}-", dir=target.parent))
    try:
        write(staging)
        _keep_what_people_wrote(staging / CARD, root, kind, repo_id, revision)
        files = _digests(staging)
        if not target.exists():
            # Temporary folders are private, and so are weights as safetensors writes them; what is published is not.
            for path in [staging, *staging.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
            try:
                staging.rename(target)
                return Published(target, tuple(files), is_new=True)
            except OSError:
                if not target.exists():
                    raise  # else somebody published it in this very moment: compare
        change = _change(target, staging)
        if change is not None and not (change == "card" and accept_other_card):
            _refuse(root, kind, repo_id, revision, change)
        return Published(target, tuple(files), is_new=False)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish_dataset(
    root: str | Path,
    repo_id: str,
    revision: str,
    tables: Mapping[str, Mapping[str, datasets.Dataset]],
    card: str,
    *,
    accept_other_card: bool = False,
) -> Published:
    """Publish a dataset as Parquet files and a card, readable by `load_dataset(folder, config)` alone.

    Args:
        root: The hub's folder.
        repo_id: `name` or `owner/name`.
        revision: Version, e.g. `v1.0.0`.
        tables: Datasets by config and split, none of them empty.
        card: Card with front matter; `configs` and `dataset_info` are added to it.
        accept_other_card: See `publish`.

    Raises:
        UserError: The revision exists with other content; names the next free version.
    """

    def write(staging: Path) -> None:
        for config, splits in tables.items():
            (staging / config).mkdir()
            for split, dataset in splits.items():
                _write_parquet(dataset, staging / config, split)
        (staging / CARD).write_text(_with_configs(card, tables), encoding="utf-8")

    return publish(root, "dataset", repo_id, revision, write, accept_other_card=accept_other_card)


def _write_parquet(dataset: datasets.Dataset, into: Path, split: str) -> None:
    shards = max(1, math.ceil(_bytes_of(dataset) / _SHARD_BYTES))
    for index in range(shards):
        shard = dataset.shard(shards, index, contiguous=True)
        _write_shard(shard, into / f"{split}-{index:05d}-of-{shards:05d}.parquet")


def _write_shard(shard: datasets.Dataset, path: Path) -> None:
    """Write what `shard.to_parquet` writes, in smaller row groups where it is large."""
    from datasets import config
    from datasets.arrow_writer import get_parquet_column_options
    from pyarrow import parquet

    rows = max(1, len(shard) * _ROW_GROUP_BYTES // max(1, _bytes_of(shard)))
    schema, chunking = shard.features.arrow_schema, config.DEFAULT_CDC_OPTIONS
    columns = get_parquet_column_options(shard.features, schema)
    with parquet.ParquetWriter(
        path, schema, use_content_defined_chunking=chunking, write_page_index=True, **columns
    ) as writer:
        for part in _parts(shard, rows):
            writer.write_table(part)
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(chunking)})


def _bytes_of(dataset: datasets.Dataset) -> int:
    """Return `dataset.data.nbytes`, for which a page of every column of every batch has to be read."""
    return sum(int(part.nbytes) for part in _parts(dataset, _COUNTED_ROWS))


def _parts(dataset: datasets.Dataset, rows: int) -> Iterator[pyarrow.Table]:
    """Yield a dataset in tables of so many rows, in the memory of one of them.

    A dataset is one map of its files into memory, of which every page that was read stays with the process. Here each
    part has a map of its own.
    """
    reference = pickle.dumps(dataset.data)  # of a table on disk this is the path
    for start in range(0, len(dataset), rows):
        yield pickle.loads(reference).fast_slice(start, rows)


def _with_configs(card: str, tables: Mapping[str, Mapping[str, datasets.Dataset]]) -> str:
    from datasets.info import DatasetInfo, DatasetInfosDict
    from datasets.splits import SplitDict, SplitInfo
    from huggingface_hub import DatasetCard

    parsed = DatasetCard(card)
    parsed.data["configs"] = [
        {"config_name": config, "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in splits]}
        for config, splits in tables.items()
    ]
    infos: dict[str, Any] = {}
    for config, splits in tables.items():
        sizes = SplitDict()
        for split, dataset in splits.items():
            sizes.add(SplitInfo(name=split, num_bytes=_bytes_of(dataset), num_examples=len(dataset)))
        infos[config] = DatasetInfo(features=next(iter(splits.values())).features, splits=sizes)
    DatasetInfosDict(infos).to_dataset_card_data(parsed.data)
    return str(parsed)


def _keep_what_people_wrote(card: Path, root: str | Path, kind: Kind, repo_id: str, revision: str) -> None:
    known = revisions(root, kind, repo_id)
    if not known or not card.exists():
        return
    previous = folder(root, kind, repo_id, revision if revision in known else known[-1]) / CARD
    if previous.exists():
        merged = merge(previous.read_text(encoding="utf-8"), card.read_text(encoding="utf-8"))
        card.write_text(merged, encoding="utf-8")


def _digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its relative name."""
    digests = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                digests[file.relative_to(path).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


def _change(old: Path, new: Path) -> Change | None:
    """Return what tells two folders apart, the weightiest difference first; None where they are the same."""
    before, after = _digests(old), _digests(new)
    if before == after:
        return None
    columns_before, columns_after = _schemas(old), _schemas(new)
    if any(columns_before[table] != columns_after[table] for table in columns_before.keys() & columns_after.keys()):
        return "schema"
    before.pop(CARD, None)
    after.pop(CARD, None)
    if before != after:
        return "content"
    return None if _told(old / CARD) == _told(new / CARD) else "card"


def _told(card: Path) -> str | None:
    return _REBUILD.sub("", card.read_text(encoding="utf-8")) if card.exists() else None


def _schemas(path: Path) -> dict[str, Any]:
    """Return the Parquet schema of every config and split below a folder."""
    files = sorted(path.rglob("*.parquet"))
    if not files:
        return {}
    from pyarrow import ArrowInvalid, parquet

    schemas = {}
    for file in files:
        try:
            schema = parquet.read_schema(file)
        except ArrowInvalid as error:
            raise UserError(
                f"{file}: published, but no Parquet file any more ({error}); remove the folder of its revision, and "
                "the same command publishes it again"
            ) from None
        schemas[file.relative_to(path).as_posix().partition("-0")[0]] = schema.remove_metadata()
    return schemas


def _refuse(root: str | Path, kind: Kind, repo_id: str, revision: str, change: Change) -> None:
    part = {"schema": 0, "content": 1, "card": 2}[change]
    what = {"schema": "other columns", "content": "other content", "card": "another card"}[change]
    level = ("major", "minor", "patch")[part]
    known = {_version(name) for name in revisions(root, kind, repo_id)}
    free = list(_version(revision))
    while tuple(free) in known:
        free[part:] = [free[part] + 1, *[0] * (2 - part)]
    name = f"{revision[0] if revision[0] == 'v' else ''}{'.'.join(map(str, free))}"
    raise UserError(
        f"{kind} {repo_id!r} has a revision {revision} already, with {what}; a published revision never changes. "
        f"The next free {level} version is {name}: set revision: {name}"
    )


def _version(revision: str) -> tuple[int, int, int]:
    match = _REVISION.fullmatch(revision)
    assert match is not None
    return int(match.group(2)), int(match.group(3)), int(match.group(4))
