"""How far a version must rise: by what changed since the newest lower one, here and on the Hub alike.

a column removed or retyped; a student's architecture or vocabulary     major
a column added; rows, weights or how a student generates                minor
the card and what goes with it: scores, logs, where a run lies          patch
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any, Literal

from toolkit.cards import split
from toolkit.errors import UserError

if TYPE_CHECKING:
    import pyarrow

Level = Literal["major", "minor", "patch"]

CARD = "README.md"
_LEVELS: tuple[Level, ...] = ("major", "minor", "patch")
_REVISION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
# How a revision came to be, and where else it lies: the same data rebuilt from another folder, under newer libraries or
# after its dataset was published is no other revision.
_UNTOLD = re.compile(r"<!-- generated:(rebuild|links|changelog) -->.*?<!-- /generated:\1 -->", re.DOTALL)
# Likewise: a recipe that shares its dataset with others, and pictures, in which other versions of libraries differ, of
# figures that the card states.
_UNTOLD_FILES = ("*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp", "recipe.yaml", "environment.txt")
_WITH_THE_CARD = (".eval_results/*", "*.jsonl", "run.json")
# Of a student's configuration: what says how it is kept and who made it, not what it is.
_NO_ARCHITECTURE = {
    *("transformers_version", "dtype", "torch_dtype", "_name_or_path", "use_cache"),
    *("revision", "peft_version", "inference_mode", "auto_mapping", "lora_dropout"),
}


@dataclass(frozen=True)
class Content:
    """What a revision holds, as far as versions go by it.

    Attributes:
        files: Digests of every file but the card by its name: the file's SHA-256, its name in git, or both.
        interface: What its users rely on, each thing with its kind: columns with their types, or a student's
            architecture and vocabulary.
        card: Text of its card; empty where it has none.
    """

    files: Mapping[str, frozenset[str]]
    interface: Mapping[str, str]
    card: str


@dataclass(frozen=True)
class Change:
    """What tells two revisions apart.

    Attributes:
        level: The part of the version that must rise for it.
        what: The weightiest difference, to be shown.
    """

    level: Level
    what: str


def change(before: Content, after: Content) -> Change | None:
    """Return what tells two contents apart, the weightiest difference; None where they are the same."""
    for thing, kind in before.interface.items():
        if thing not in after.interface:
            return Change("major", f"{thing} is gone")
        if after.interface[thing] != kind:
            return Change("major", f"{thing} is {_short(after.interface[thing])} and was {_short(kind)}")
    for thing in after.interface:
        if thing not in before.interface:
            return Change("minor", f"{thing} is new")
    differing = [
        name
        for name in sorted(before.files.keys() | after.files.keys())
        if not before.files.get(name, frozenset()) & after.files.get(name, frozenset())
        and not any(fnmatchcase(name, pattern) for pattern in _UNTOLD_FILES)
    ]
    for name in differing:
        if not any(fnmatchcase(name, pattern) for pattern in _WITH_THE_CARD):
            return Change("minor", f"{name} has other content")
    if differing:
        return Change("patch", f"{differing[0]} is another one")
    return None if _told(before.card) == _told(after.card) else Change("patch", "the card is another one")


def _told(card: str) -> tuple[dict[str, Any], str]:
    """Return a card's front matter, whose order says nothing, and its body without what makes no other revision."""
    try:
        data, body = split(card)
    except UserError:  # of a revision that is there, and stays as it is
        data, body = {}, card
    return data, _UNTOLD.sub("", body)


def check_rise(what: str, key: str, revision: str, known: Sequence[str], since: Callable[[str], Change | None]) -> None:
    """See to it that a new version is far enough from the newest lower one.

    Args:
        what: What is published, to be shown.
        key: Key of the recipe that sets the version.
        revision: The new version.
        known: All versions that there are.
        since: Compares what there is under a known version with what is to be published.

    Raises:
        UserError: The rise is smaller than what changed; names the versions that would do.
    """
    lower = [name for name in known if version(name) < version(revision)]
    if not lower:
        return
    before = max(lower, key=version)
    found = since(before)
    risen = next(i for i, (old, new) in enumerate(zip(version(before), version(revision), strict=True)) if old != new)
    if found is not None and risen > _LEVELS.index(found.level):
        raise UserError(
            f"{what}: {revision} is a {_LEVELS[risen]} version after {before}, but {found.what}, for which the "
            f"{found.level} version must rise. {_allowed(key, before, found.level, known)}"
        )


def refuse(what: str, key: str, revision: str, known: Iterable[str], found: Change) -> None:
    """Refuse to publish other content under a version that there is.

    Raises:
        UserError: Always; names the versions that are free.
    """
    raise UserError(
        f"{what} has a revision {revision} already, and {found.what}; a published revision never changes. "
        f"{_allowed(key, revision, found.level, known)}"
    )


def version(revision: str) -> tuple[int, int, int]:
    """Return the numbers of a version that is one."""
    match = _REVISION.fullmatch(revision)
    assert match is not None
    return int(match.group(1)), int(match.group(2)), int(match.group(3))


def is_version(revision: str) -> bool:
    """Whether a name is a version like `v1.2.3`."""
    return _REVISION.fullmatch(revision) is not None


def _allowed(key: str, revision: str, level: Level, known: Iterable[str]) -> str:
    taken = {version(name) for name in known}
    free = {part: _free(revision, part, taken) for part in _LEVELS[_LEVELS.index(level) :: -1]}
    first, *others = free.items()
    more = "".join(f", the next {part} one {name}" for part, name in others)
    return f"The next free {first[0]} version is {first[1]}{more}: set {key}={first[1]}"


def _free(revision: str, level: Level, taken: set[tuple[int, int, int]]) -> str:
    part = _LEVELS.index(level)
    numbers = list(version(revision))
    while True:
        numbers[part:] = [numbers[part] + 1, *[0] * (2 - part)]
        if (numbers[0], numbers[1], numbers[2]) not in taken:
            return f"{revision[0] if revision[0] == 'v' else ''}{'.'.join(map(str, numbers))}"


def interface(names: Iterable[str], read: Callable[[str], IO[bytes]]) -> dict[str, str]:
    """Return what the users of a revision rely on.

    Args:
        names: Its files.
        read: Opens one of them.

    Raises:
        pyarrow.ArrowInvalid: A Parquet file is none.
    """
    found: dict[str, str] = {}
    tables = set()
    for name in sorted(names):
        table = name.partition("-0")[0]
        if name.endswith(".parquet") and table not in tables:
            from pyarrow import parquet

            tables.add(table)
            with read(name) as file:
                found |= {f"column {path} of {table}": kind for path, kind in _columns(parquet.read_schema(file))}
        elif name in ("config.json", "adapter_config.json"):
            with read(name) as file:
                settings = json.load(file)
            found |= {
                f"{name}: {key}": json.dumps(value, sort_keys=True)
                for key, value in settings.items()
                if key not in _NO_ARCHITECTURE
            }
        elif name == "tokenizer.json":
            with read(name) as file:
                found["the vocabulary"] = _vocabulary(json.load(file))
    return found


def _columns(fields: Iterable[pyarrow.Field], above: str = "") -> Iterable[tuple[str, str]]:
    """Yield every column with its type, those within columns as `chain.rationale` and `steps[].question`."""
    from pyarrow import types

    for field in fields:
        path, kind = f"{above}{field.name}", field.type
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            path, kind = f"{path}[]", kind.value_type
        if types.is_struct(kind):
            yield from _columns(kind, f"{path}.")
        else:
            yield path, str(kind)


def _vocabulary(tokenizer: Mapping[str, Any]) -> str:
    """Return a digest of a tokenizer's tokens and how text is cut into them."""
    added = [(token["id"], token["content"]) for token in tokenizer.get("added_tokens") or []]
    model = tokenizer.get("model") or {}
    content = json.dumps([added, model.get("vocab"), model.get("merges")], sort_keys=True)
    return sha256(content.encode()).hexdigest()


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
