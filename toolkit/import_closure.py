"""Which of our modules another one can reach, and what they come to: found by reading source, importing nothing.

What identifies a stage, a run or a dataset depends on the code that decides it. That code is the static import closure
of an entry module: its imports at the top and inside functions, those of what it imports, and so on, in the packages of
this project and in the entry's own. Libraries are no part of it, and neither are imports for type checkers.

A digest covers what the code does: comments, docstrings and layout change nothing, and neither does the version of
Python that reads it. Data files that code reads are their reader's business.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("toolkit", "dataset_builders")
# Derived from the rest of a tree, or of no effect; leaving them out takes a third off the time.
_SKIPPED = frozenset({"ctx", "kind", "type_comment"})


@cache
def closure_digest(*entries: str) -> str:
    """Return the SHA-256 (hex) of the code of `modules_reached`, as it was when this process first asked.

    Raises:
        ModuleNotFoundError: An entry is not there.
    """
    digest = hashlib.sha256()
    for name, path in modules_reached(*entries).items():
        digest.update(f"{name} {_read(path, name)[0]}\n".encode())
    return digest.hexdigest()


def modules_reached(*entries: str) -> dict[str, Path]:
    """Return the modules that entries can reach, themselves and all `__init__`s on the way included, sorted by name.

    Args:
        entries: Full names of modules, in `OURS` or in packages of the caller's own, which then count as well.

    Raises:
        ModuleNotFoundError: An entry is not there.
    """
    packages = {*OURS, *(entry.partition(".")[0] for entry in entries)}
    found: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = _source_of(name)
        if path is None:
            if name in entries:
                raise ModuleNotFoundError(f"there is no source of a module {name}", name=name)
            continue  # a name imported out of a module, not a module
        found[name] = path
        waiting += _read(path, name)[1]
        waiting += _parents(name)  # importing a module runs the packages above it
    return dict(sorted(found.items()))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@cache
def _source_of(name: str) -> Path | None:
    """Return the file of a module; None where there is none. Asks Python for the top package alone: no import runs."""
    top, *inner = name.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:  # a single file
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") and not inner else None
    for root in spec.submodule_search_locations:
        place = Path(root, *inner)
        for file in (place / "__init__.py", place.with_suffix(".py") if inner else None):
            if file is not None and file.is_file():
                return file
    return None


@cache
def _read(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module's code, and the full names that it may import; not all of them are modules."""
    reader = _Reader(path, name if path.name == "__init__.py" else name.rpartition(".")[0])
    reader.visit(ast.parse(path.read_bytes(), filename=str(path)))
    return hashlib.sha256("".join(reader.written).encode("utf-8", "surrogatepass")).hexdigest(), tuple(reader.names)


class _Reader:
    """Goes through a module's syntax tree once, writes down what it does, and notes what it may import.

    Attributes:
        written: The tree as text. Not `ast.dump`, which differs between versions of Python.
        names: Full names of what may be imported.
    """

    def __init__(self, path: Path, package: str) -> None:
        self.written: list[str] = []
        self.names: list[str] = []
        self._path, self._package = path, package

    def visit(self, node: ast.AST) -> None:
        """Write a node and all below it."""
        if _has_no_effect(node):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.names += self._imported(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.names += self._named(node.value)
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            self._write(node.orelse)
            return
        self.written.append(f"({type(node).__name__}")
        for field in node._fields:
            if field not in _SKIPPED:
                value = getattr(node, field, None)
                if value is not None and value != []:  # versions of Python differ in fields that are empty
                    self.written.append(f" {field}=")
                    self._write(value)
        self.written.append(")")

    def _write(self, value: object) -> None:
        if isinstance(value, ast.AST):
            self.visit(value)
        elif isinstance(value, list):
            self.written.append("[")
            for item in value:
                self._write(item)
            self.written.append("]")
        else:
            self.written.append(repr(value))

    def _imported(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:  # one dot is the package itself, each further one the package above
            above = self._package.split(".")[: len(self._package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)

    def _named(self, text: str) -> Iterator[str]:
        """Give modules that code names in a text: for `import_module`, for `python -m`, or as a script beside it."""
        if text.endswith(".py") and text == Path(text).name and self._path.with_name(text).is_file():
            yield f"{self._package}.{text.removesuffix('.py')}"
        elif "." in text and text.replace(".", "").isidentifier():
            yield text


def _has_no_effect(node: ast.AST) -> bool:
    """Whether a node is a text that stands alone: a docstring, of a module or of a name above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"
