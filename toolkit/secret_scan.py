"""Looks for secrets in files that are about to leave this machine; says where and of what kind, never what.

Every byte is looked at, and of Parquet files also what is packed in them: texts at any depth. Of safetensors only the
header is text. A secret that is encoded, or cut in two, is not found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

# Each begins with fixed characters, for which text is gone through quickly.
_KNOWN = {
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "an API key that starts with sk-": r"sk-[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"AKIA[0-9A-Z]{16}",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{36,}",
    "a GitHub fine-grained token": r"github_pat_[A-Za-z0-9_]{50,}",
    "a GitLab token": r"glpat-[A-Za-z0-9_-]{20,}",
    "a Google API key": r"AIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"xox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_SECRET_WORDS = {"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}
_ENDS = (*_SECRET_WORDS, "KEYS", "SECRETS", "PASSWORDS", "PASSPHRASE")
_PLACES = {"PATH", "FILE", "DIR", "FOLDER"}
_SHORTEST = 8  # characters of a value of the environment; a shorter one is found everywhere
_BLOCK = 1 << 22
_OVERLAP = 1 << 10  # bytes; longer than any secret of above needs to be told
_ROWS = 2_000


def names_a_secret(variable: str) -> bool:
    """Whether the name of a variable of the environment says that it holds a secret: `OPENAI_API_KEY_2`, `hfToken`.

    Rather one too many: `MONKEY` is taken for a key. What names the place of one, as `HF_TOKEN_PATH`, is none.
    """
    words = [word for word in re.split(r"[^A-Z]+", variable.upper()) if word]
    return not set(words[-1:]) & _PLACES and any(word.endswith(_ENDS) or word == "PASS" for word in words)


@dataclass(frozen=True)
class Finding:
    """A secret in a file.

    Attributes:
        file: Relative to the folder that was looked through.
        place: Line, row and column, or byte.
        kind: What it looks like, or whose value it is.
    """

    file: str
    place: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.kind}"


class Secrets:
    """What is looked for: tokens of well-known makes, and the values of the environment's own keys.

    Args:
        environment: Variables; whose name says that it holds a secret is looked for.
        named: Further names of variables that hold secrets, whatever they are called.
        values: Further secrets by what they are, such as the token that one is logged in with.
    """

    def __init__(
        self, environment: Mapping[str, str], named: Iterable[str] = (), values: Mapping[str, str | None] | None = None
    ) -> None:
        own = {
            f"the value of {name}": value
            for name, value in environment.items()
            if name in set(named) or _SECRET_WORDS & set(name.upper().split("_"))
        }
        own |= {kind: value for kind, value in (values or {}).items() if value}
        self._texts = {kind: value for kind, value in own.items() if len(value) >= _SHORTEST}
        escaped = {kind: re.escape(value) for kind, value in self._texts.items()}
        self._kinds = {kind: re.compile(text.encode()) for kind, text in (_KNOWN | escaped).items()}
        # One for Arrow, whose dialect knows no group names and escapes as Python does.
        self._any = "|".join([*_KNOWN.values(), *(_for_arrow(value) for value in self._texts.values())])

    def find(self, text: bytes) -> Iterator[tuple[int, str]]:
        """Yield offset and kind of every secret in a text."""
        for kind, pattern in self._kinds.items():
            for match in pattern.finditer(text):
                before = text[match.start() - 1 : match.start()]
                # `task-...` holds no `sk-...`; a value of the environment is one wherever it stands.
                if kind not in _KNOWN or not before.isalnum():
                    yield match.start(), kind

    def scan(self, folder: Path) -> Iterator[Finding]:
        """Yield every secret in the files below a folder."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            for offset, kind in self.find(os.fsencode(name)):
                yield Finding(name, f"its name, character {offset + 1}", kind)
            yield from (Finding(name, place, kind) for place, kind in self._in_file(path))

    def _in_file(self, path: Path) -> Iterator[tuple[str, str]]:
        if path.suffix == ".parquet":
            yield from self._in_parquet(path)
        end = _header_bytes(path) if path.suffix == ".safetensors" else None
        is_text = path.suffix not in (".parquet", ".safetensors", ".bin", ".png")
        told, start, lines, block = -1, 0, 1, b""
        with path.open("rb") as file:
            while new := file.read(min(_BLOCK, end - start - len(block)) if end is not None else _BLOCK):
                block += new
                for offset, kind in sorted(self.find(block)):
                    if start + offset <= told:
                        continue  # in what two blocks share
                    told = start + offset
                    line = lines + block.count(b"\n", 0, offset)
                    yield f"line {line}" if is_text else f"byte {told}", kind
                passed = max(0, len(block) - _OVERLAP)
                lines += block.count(b"\n", 0, passed)
                start, block = start + passed, block[passed:]

    def _in_parquet(self, path: Path) -> Iterator[tuple[str, str]]:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import parquet

        first = 0
        for batch in parquet.ParquetFile(path).iter_batches(_ROWS):
            rows = pa.array(range(first, first + len(batch)))
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for leaf, places, values in _texts(name, column, rows):
                    hits = pc.fill_null(pc.match_substring_regex(values, self._any), False)
                    for row, text in zip(places.filter(hits).to_pylist(), values.filter(hits).to_pylist(), strict=True):
                        content = text.encode() if isinstance(text, str) else text
                        for kind in sorted({kind for _, kind in self.find(content)}):
                            yield f"row {row + 1}, column {leaf}", kind
            first += len(batch)


def _texts(path: str, array: Any, rows: Any) -> Iterator[tuple[str, pyarrow.Array, pyarrow.Array]]:
    """Yield name, row of each value, and values of every column of texts within an Arrow array."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if types.is_map(kind):
        parents = rows.take(pc.list_parent_indices(array.cast(_as_list(kind))))
        yield from _texts(f"{path}[].key", array.keys, parents)
        yield from _texts(f"{path}[].value", array.items, parents)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _texts(f"{path}[]", array.flatten(), rows.take(pc.list_parent_indices(array)))
    elif types.is_struct(kind):
        for index, field in enumerate(kind):
            yield from _texts(f"{path}.{field.name}", array.field(index), rows)
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        yield path, rows, array


def _as_list(kind: Any) -> Any:
    import pyarrow as pa

    return pa.list_(pa.struct([kind.key_field, kind.item_field]))


def _for_arrow(text: str) -> str:
    """Return a text as a pattern of RE2: every character that is no letter or digit by its number."""
    return "".join(char if char.isalnum() and char.isascii() else f"\\x{{{ord(char):x}}}" for char in text)


def _header_bytes(path: Path) -> int:
    """Return where the header of a safetensors file ends: its length stands in the first eight bytes."""
    with path.open("rb") as file:
        return min(8 + int.from_bytes(file.read(8), "little"), path.stat().st_size)
