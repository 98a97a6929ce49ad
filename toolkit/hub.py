"""A hub in a folder: `<root>/datasets/<repo_id>/<revision>/` and `<root>/models/<repo_id>/<revision>/`.

Each revision is a folder that `load_dataset` or `from_pretrained` reads as it stands. A revision is written once:
it appears whole or not at all, and never changes afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from toolkit.cards import LARGEST, merge, read_card, shown_files
from toolkit.disk_faults import REMEDY, disk_fault
from toolkit.errors import UserError, nearest
from toolkit.parquet_files import write_split
from toolkit.version_rules import CARD, Content, change, check_rise, interface, is_version, refuse, version

if TYPE_CHECKING:
    import datasets

Kind = Literal["dataset", "model"]
OtherCard = Literal["refuse", "keep", "take"]

KEYS: dict[Kind, str] = {"dataset": "dataset.revision", "model": "publish.revision"}
_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_STAGED = ".staged-"


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Attributes:
        folder: The revision's folder.
        files: Everything in it, relative to it.
        is_new: False where the same content was there already and nothing was written.
        keeps_card: Whether the card that was there already says something else than the new one, and was kept.
    """

    folder: Path
    files: tuple[str, ...]
    is_new: bool
    keeps_card: bool = False


def folder(root: str | Path, kind: Kind, repo_id: str, revision: str) -> Path:
    """Return where a revision lies, or would.

    Raises:
        UserError: The id is not `name` or `owner/name`, or the revision is not `v1.2.3`.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise UserError(f"repo_id {repo_id!r} must be `name` or `owner/name` of letters, digits, '-', '_' and '.'")
    if not is_version(revision):
        raise UserError(f"revision {revision!r} must be a version like v1.0.0")
    return Path(root) / f"{kind}s" / repo_id / revision


def revisions(root: str | Path, kind: Kind, repo_id: str) -> list[str]:
    """Return the revisions of a repository, oldest version first; none where there is no such repository."""
    repository = folder(root, kind, repo_id, "v0.0.0").parent
    names = [path.name for path in repository.glob("*") if path.is_dir() and is_version(path.name)]
    return sorted(names, key=version)


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
    other_card: OtherCard = "refuse",
) -> Published:
    """Write a revision, whole or not at all.

    Args:
        root: The hub's folder.
        kind: What is published.
        repo_id: `name` or `owner/name`.
        revision: Version, e.g. `v1.0.0`.
        write: Fills the empty folder it is given. A card among the files is merged with what people wrote into the
            card of this revision, or else of the newest one.
        other_card: What to do about a revision that differs in its card alone: refuse, keep it as it is, or take the
            new card.

    Raises:
        UserError: The revision exists with other content, or is too close to the newest lower one, with the versions
            that would do; or the disk is full.
    """
    target = folder(root, kind, repo_id, revision)
    try:
        with _staging(target) as staging:
            write(staging)
            return _put(staging, target, root, kind, repo_id, other_card)
    except UserError:
        raise
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        why = "no space is left on its disk" if os.strerror(errno.ENOSPC) in fault else fault
        raise UserError(f"{target}: {why}; nothing of the revision was kept. {REMEDY}") from None


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Give an empty folder beside a revision, to one publisher of its repository at a time.

    What publishers that were killed have left is removed.
    """
    from filelock import FileLock  # takes longer to import than all else here

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".publishing"):
        for left in target.parent.glob(f"{_STAGED}*"):
            shutil.rmtree(left, ignore_errors=True)
        # Beside its target, so that the rename at the end stays within one file system and is atomic.
        staging = Path(tempfile.mkdtemp(prefix=_STAGED, dir=target.parent))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, target: Path, root: str | Path, kind: Kind, repo_id: str, other_card: OtherCard) -> Published:
    """Make a staged folder the revision; arguments and errors as of `publish`."""
    revision = target.name
    keep_what_people_wrote(staging / CARD, root, kind, repo_id, revision)
    names = tuple(sorted(files(staging)))
    for path in [staging, *staging.rglob("*")]:
        # Temporary folders are private, and so are weights as safetensors writes them; what is published is not.
        path.chmod(0o755 if path.is_dir() else 0o644)
    new, what, known = content(staging), f"{kind} {repo_id!r}", revisions(root, kind, repo_id)
    if not target.exists():
        check_rise(what, KEYS[kind], revision, known, lambda name: change(content(target.with_name(name)), new))
        staging.rename(target)
        return Published(target, names, is_new=True)
    found = change(content(target), new)
    if found is not None and (found.level != "patch" or other_card == "refuse"):
        refuse(what, KEYS[kind], revision, known, found)
    if found is not None and other_card == "take":
        for gone in {path for path in target.rglob("*") if path.is_file()} - {target / name for name in names}:
            gone.unlink()
        for name in names:
            (target / name).parent.mkdir(exist_ok=True)
            (staging / name).replace(target / name)
    return Published(target, names, is_new=False, keeps_card=found is not None and other_card == "keep")


def publish_dataset(
    root: str | Path,
    repo_id: str,
    revision: str,
    tables: Mapping[str, datasets.DatasetBuilder],
    card: str,
    *,
    beside: Callable[[Path], None] = lambda folder: None,
    other_card: OtherCard = "refuse",
) -> Published:
    """Publish a dataset as Parquet files and a card, readable by `load_dataset(folder, config)` alone.

    Args:
        root: The hub's folder.
        repo_id: `name` or `owner/name`.
        revision: Version, e.g. `v1.0.0`.
        tables: Prepared builders by config, no split of them empty.
        card: Card with front matter; `configs` and `dataset_info` are added to it.
        beside: Writes what the card shows and links into the folder it is given.
        other_card: See `publish`.

    Raises:
        UserError: The revision exists with other content; names the next free version.
    """

    def write(staging: Path) -> None:
        for config, prepared in tables.items():
            (staging / config).mkdir()
            for split in prepared.info.splits:
                write_split(prepared, split, staging / config)
        (staging / CARD).write_text(_with_configs(card, tables), encoding="utf-8")
        beside(staging)

    return publish(root, "dataset", repo_id, revision, write, other_card=other_card)


def _with_configs(card: str, tables: Mapping[str, datasets.DatasetBuilder]) -> str:
    from datasets.info import DatasetInfo, DatasetInfosDict
    from huggingface_hub import DatasetCard

    parsed = DatasetCard(card)
    parsed.data["configs"] = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in prepared.info.splits],
        }
        for config, prepared in tables.items()
    ]
    infos = {
        config: DatasetInfo(features=prepared.info.features, splits=prepared.info.splits)
        for config, prepared in tables.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(parsed.data)
    return str(parsed)


def write_dataset_card(
    path: Path,
    root: str | Path,
    repo_id: str,
    revision: str,
    tables: Mapping[str, datasets.DatasetBuilder],
    card: str,
) -> None:
    """Write a dataset's card as `publish_dataset` would, into a file of one's own."""
    path.write_text(_with_configs(card, tables), encoding="utf-8")
    keep_what_people_wrote(path, root, "dataset", repo_id, revision)


def keep_what_people_wrote(card: Path, root: str | Path, kind: Kind, repo_id: str, revision: str) -> None:
    """Bring a new card, and the pictures shown in it, into the one of this revision, or else of the newest there is.

    Raises:
        UserError: That card cannot be read, or not be merged with.
    """
    known = revisions(root, kind, repo_id)
    if not known or not card.exists():
        return
    previous = folder(root, kind, repo_id, revision if revision in known else known[-1]) / CARD
    if previous.exists():
        merged = merge(card_text(previous), card.read_text(encoding="utf-8"))
        card.write_text(merged, encoding="utf-8")
        shown = [name for name in shown_files(merged) if not (card.parent / name).exists()]
        there = files(previous.parent) if shown else {}
        for name in shown:
            if name in there:
                (card.parent / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(there[name], card.parent / name)


def card_text(path: Path) -> str:
    """Return the text of a card that lies here.

    Raises:
        UserError: It is a folder, or as of `read_card`.
    """
    if not path.is_file():
        raise UserError(f"{path}: is no file; a card is one")
    with path.open("rb") as file:
        return read_card(file.read(LARGEST + 1), str(path))


def content(path: Path) -> Content:
    """Return what a revision's folder holds.

    Raises:
        UserError: A Parquet file of it is damaged, or its card cannot be read.
    """
    from pyarrow import ArrowInvalid

    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}

    def read(name: str) -> IO[bytes]:
        opened.append(name)
        return files[name].open("rb")

    opened: list[str] = []
    try:
        relied_on = interface(files, read)
    except ArrowInvalid as error:
        raise UserError(
            f"{files[opened[-1]]}: published, but no Parquet file any more ({error}); remove the folder of its "
            "revision, and the same command publishes it again"
        ) from None
    card = card_text(path / CARD) if (path / CARD).exists() else ""
    found = {name: digests(file) for name, file in files.items() if name != CARD}
    return Content(found, relied_on, card)


def files(path: Path) -> dict[str, Path]:
    """Return every file below a folder that is to be copied or sent, by its name relative to it.

    A link to a file within the folder is that file. All else that is no plain file would leave the folder, or be left
    out without a word.

    Raises:
        UserError: A symbolic link leads out of the folder, nowhere or to another folder, or there is a named pipe, a
            socket or a device; names each.
    """
    found, faults = {}, []
    root = path.resolve()
    for file in sorted(path.rglob("*")):  # which goes into no folder through a link
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            target = os.path.realpath(file)
            is_inside = Path(target).is_relative_to(root)
            if not is_inside or not os.path.isfile(target):
                what = "to a folder" if is_inside and os.path.isdir(target) else "nowhere" if is_inside else "out of it"
                faults.append(f"{name} is a symbolic link that leads {what} ({os.readlink(file)})")
                continue
        elif not file.is_file():
            if not file.is_dir():
                faults.append(f"{name} is neither a file nor a folder")
            continue
        found[name] = file
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults[:20])
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise UserError(f"{path} holds what is no file of its own; put a copy in its place:\n{listed}{more}")
    return found


def digests(file: Path) -> frozenset[str]:
    """Return a file's SHA-256 and its name in git, of which the Hub tells one or the other."""
    whole, in_git = hashlib.sha256(), hashlib.sha1(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            whole.update(block)
            in_git.update(block)
    return frozenset((whole.hexdigest(), in_git.hexdigest()))
