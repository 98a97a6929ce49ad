"""A program's source before it runs: bounded, parsed, without the imports that it does not use.

A filter, not a boundary: what passes here is as untrusted as before. It exists because models open their programs with
imports that they never use, which would send nearly every one of them to the slow tier.
"""

from __future__ import annotations

import ast
import keyword
import symtable
from collections.abc import Mapping
from typing import NamedTuple

from toolkit.errors import UserError
from toolkit.interpreted_modules import PROVIDED
from toolkit.program_doubts import Doubts, doubts

_STANDARD = """__future__ abc bisect calendar cmath collections copy dataclasses datetime decimal enum fractions
functools heapq itertools json math numbers operator random re statistics string time typing unicodedata"""
IMPORTABLE = frozenset([*_STANDARD.split(), "dateutil", "mpmath", "numpy", "sympy"])
"""Top-level modules that a program may import. Nothing here opens a file or a connection by itself."""

RESULT = "_called_for_its_result"  # holds what the function returned, where the variable is named as `solver()`


class Rejected(Exception):
    """A source that is not run; `status` says why: `syntax` or `import`."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Program(NamedTuple):
    """What a tier runs, and the name of the variable that it reads afterwards.

    `interpreted` is the source for the interpreter where that differs: it names what `interpreted_modules` provides.
    `doubts` are those about running it there.
    """

    source: str
    variable: str
    interpreted: str = ""
    doubts: Doubts = Doubts("", is_lazy=False, is_plain=True)


def prepared(source: str, variable: str, source_bytes: int) -> Program:
    """Return the program without its unused imports.

    Args:
        source: Python as a model wrote it.
        variable: Name of the variable that holds the result; with `()` behind it, of a function to be called for it.
        source_bytes: The longest source allowed, in bytes of UTF-8.

    Raises:
        Rejected: Too long, not Python, nested too deeply for the parser, or importing what is not `IMPORTABLE`.
        UserError: `variable` is no name.
    """
    name = variable.removesuffix("()")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"variable: found {variable!r}; allowed is a name, or a function's name with () behind it")
    if variable != name:
        source, variable = f"{source}\n{RESULT} = {variable}\n", RESULT
        source_bytes += len(f"\n{RESULT} = {variable}\n")
    try:
        encoded = source.encode()
        if len(encoded) > source_bytes:
            raise Rejected("syntax")
        tree = ast.parse(source)  # as text: a declared encoding has no say
        # Names declared twice or too late, which the interpreter takes. Not `compile`: nested `finally` blocks double.
        symtable.symtable(source, "<program>", "exec")
        stripped = _with_imports(tree, encoded, {})
        interpreted = _with_imports(tree, encoded, PROVIDED)
        found = doubts(tree)
    # A short source can nest deeper than the parser's stack: RecursionError or MemoryError, not SyntaxError.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Rejected("syntax") from None
    other = interpreted.decode() if interpreted != stripped else ""
    return Program(stripped.decode(), variable, other, found)


def _with_imports(tree: ast.Module, source: bytes, provided: Mapping[tuple[str, str], str]) -> bytes:
    """Take out each import of names that nothing reads, by the positions that the parser gives, not by its text.

    An import of names that are all `provided` becomes an assignment of what they are provided as.
    """
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
    lines = source.splitlines(keepends=True)
    # Backwards, so that the positions of earlier statements stay right.
    for node in sorted(_imports(tree), key=lambda node: (node.lineno, node.col_offset), reverse=True):
        names = [alias for alias in node.names if (alias.asname or alias.name).split(".")[0] in read | {"*"}]
        modules = [alias.name for alias in names] if isinstance(node, ast.Import) else [node.module or ""]
        if names and any(module.split(".")[0] not in IMPORTABLE for module in modules):
            raise Rejected("import")
        if isinstance(node, ast.ImportFrom) and node.level:
            raise Rejected("import")
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if not names:
            kept = "pass"  # an empty block would be a syntax error
        elif isinstance(node, ast.ImportFrom) and all((node.module, alias.name) in provided for alias in names):
            kept = "; ".join(f"{each.asname or each.name} = {provided[node.module or '', each.name]}" for each in names)
        elif names == node.names:
            continue
        elif isinstance(node, ast.ImportFrom):
            kept = ast.unparse(ast.ImportFrom(node.module, names, 0))
        else:
            kept = ast.unparse(ast.Import(names))
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        after = lines[last][node.end_col_offset :]
        lines[first : last + 1] = [lines[first][: node.col_offset] + kept.encode() + after] + [b""] * (last - first)
    return b"".join(lines)


def _imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
