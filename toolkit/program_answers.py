"""What a generated program answers: its text found in a completion, its value after it has run, as an answer.

Running is `toolkit.programs`' business and never happens in this process. A value is an answer like any other: it is
compared by `toolkit.answers`, and 0, False and a negative number are answers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.programs import Runner, Value

# Written without a fence, a program may be followed by a question of the teacher's own.
_RUN_ON = re.compile(r"\n[^\S\n]*Q:")
_FENCE = re.compile(r"^[^\S\n]*```[^\n`]*\n(?P<code>.*?)(?:^[^\S\n]*```|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ProgramAnswer:
    """What came of a program.

    Attributes:
        answer: Its value as the text of an answer; None where it has none, or one that is no answer.
        status: As of `toolkit.programs.Outcome`; `no_value` also where the value is no answer.
        tier: Where it ran, as of `toolkit.programs.Outcome`.
    """

    answer: str | None
    status: str
    tier: int


def program_in(text: str) -> str:
    """Return the program that a completion holds: its first fenced block, or else all of it up to a run-on."""
    fenced = _FENCE.search(text)
    return (fenced["code"] if fenced else _RUN_ON.split(text, maxsplit=1)[0]).strip("\n").rstrip()


def run_all(sources: Iterable[str], variable: str, runner: Runner | None = None) -> list[ProgramAnswer]:
    """Run programs and return their answers, in order.

    Args:
        sources: The programs.
        variable: The variable that each leaves its answer in.
        runner: What runs them; by default one for these alone, which never leaves the interpreter, so that answers are
            the same on machines with and without a jail.
    """
    if runner is None:
        with Runner(tiers=(1,)) as own:
            return run_all(sources, variable, own)
    answers = []
    for outcome in runner.run_many(sources, variable):
        answer = answer_text(outcome.value)
        status = "no_value" if outcome.status == "ok" and answer is None else outcome.status
        answers.append(ProgramAnswer(answer, status, outcome.tier))
    return answers


def answer_text(value: Value | None) -> str | None:
    """Return a program's value as an answer is written: 8.0 is 8, 0.1 + 0.2 is 0.3, True is yes, [8.0] is 8.

    None for no answer: no value, an empty text, a list of none or several.
    """
    if isinstance(value, list):
        return answer_text(value[0]) if len(value) == 1 else None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # 15 digits are what a float holds; the 16th and 17th are the noise of its arithmetic.
        return str(int(value)) if value.is_integer() else f"{value:.15g}"
    return value.strip() or None if isinstance(value, str) else None


def fingerprint(source: str) -> str:
    """Return what two programs have in common that differ in layout, comments and the names of variables alone."""
    try:
        tree = ast.parse(source)
        bound: dict[str, str] = {}
        for node in ast.walk(tree):
            if name := _bound(node):
                bound.setdefault(name, f"v{len(bound)}")
        return ast.dump(_Renamed(bound).visit(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source


def _bound(node: ast.AST) -> str | None:
    """Return the name that a node gives to something, None where it gives none."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.FunctionDef) else None


class _Renamed(ast.NodeTransformer):
    """Puts other names in place of those that a program gives."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a variable."""
        return ast.Name(self._names.get(node.id, node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Rename a parameter."""
        return ast.arg(self._names[node.arg])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Rename a function."""
        node.name = self._names[node.name]
        return self.generic_visit(node)
