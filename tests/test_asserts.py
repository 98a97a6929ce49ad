"""Every test can fail: it asserts something, and not only within a loop over what may be empty."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))
_KEEP_THEIR_LENGTH = ("enumerate", "sorted", "reversed", "list", "tuple", "set")


def functions_of(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node


def may_pass_over_everything(test: ast.AST) -> list[str]:
    """Return the loops that a test's assertions all depend on and that may have nothing to go through."""
    known = {
        target.id: node.value
        for node in ast.walk(test)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return _unsure(ast.iter_child_nodes(test), known) or []


def _unsure(nodes: Iterator[ast.AST], known: dict[str, ast.expr]) -> list[str] | None:
    """Return the unsure loops around all assertions below some nodes: none where one stands clear, None without any."""
    found: list[str] | None = None
    for node in nodes:
        if isinstance(node, ast.Assert) or _expects_an_error(node):
            return []
        below = _unsure(ast.iter_child_nodes(node), known)
        if below is None:
            continue
        if isinstance(node, ast.For) and not _is_not_empty(node.iter, known):
            below = [ast.unparse(node.iter), *below]
        if not below:
            return []
        found = [*(found or []), *below]
    return found


def _expects_an_error(node: ast.AST) -> bool:
    """Whether this is `pytest.raises(...)`, or a function of the test's own that asserts, by its name."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return name.rpartition(".")[2].startswith(("raises", "warns", "assert_", "check_"))


def _is_not_empty(iterated: ast.expr, known: dict[str, ast.expr]) -> bool:
    match iterated:
        case ast.Tuple() | ast.List() | ast.Set():
            return bool(iterated.elts)
        case ast.Dict():
            return any(key is not None for key in iterated.keys)  # None: what another dictionary is spread out to
        case ast.Name(id=name) | ast.Attribute(attr=name):  # constants of a module, or what was set from one
            return name.isupper() or (name in known and _is_not_empty(known[name], {}))
        case ast.Subscript(value=value, slice=ast.Slice()):
            return _is_not_empty(value, known)
        case ast.ListComp(generators=[ast.comprehension(iter=of, ifs=[])]):
            return _is_not_empty(of, known)
        case ast.Call(func=ast.Name(id="range"), args=[*_, ast.Constant(value=int(end))]):
            return end > 0
        case ast.Call(func=ast.Name(id="range")):
            return True
        case ast.Call(func=ast.Name(id="zip"), args=args, keywords=keywords):
            is_strict = any(each.arg == "strict" and ast.unparse(each.value) == "True" for each in keywords)
            return (any if is_strict else all)(_is_not_empty(arg, known) for arg in args)
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in _KEEP_THEIR_LENGTH:
            return _is_not_empty(first, known)
        case ast.Call(func=ast.Attribute(value=value, attr="items" | "values" | "keys")):
            return _is_not_empty(value, known)
    return False


def test_no_test_asserts_only_within_a_loop_over_what_may_be_empty() -> None:
    unsure = {
        f"{file.relative_to(TESTS)}: {test.name}": loops
        for file in FILES
        for test in functions_of(file.read_text("utf-8"))
        if (loops := may_pass_over_everything(test))
    }
    assert unsure == {}, "assert that there is something to go through, or how many"


@pytest.mark.parametrize(
    ("body", "loops"),
    [
        ("for x in f(): assert x", ["f()"]),
        ("assert f()\n    for x in f(): assert x", []),
        ("for x in (1, 2): assert x", []),
        ("for x in (): assert x", ["()"]),
        ("for x in ROWS: assert x", []),
        ("for x, y in zip(f(), ROWS, strict=True): assert x", []),
        ("for x, y in zip(f(), ROWS): assert x", ["zip(f(), ROWS)"]),
        ("for x in f():\n        for y in g(): assert y", ["f()", "g()"]),
        ("for x in (1, 2):\n        for y in g(): assert y", ["g()"]),
        ("for x in f(): pass\n    with pytest.raises(ValueError): g()", []),
        ("for x in {'a': 1, **f()}.items(): assert x", []),
        ("for x in {**f()}.items(): assert x", ["{**f()}.items()"]),
        ("rows = [f(x) for x in ROWS]\n    for x in rows: assert x", []),
        ("rows = [f(x) for x in ROWS if x]\n    for x in rows: assert x", ["rows"]),
    ],
)
def test_a_loop_that_may_be_empty_is_told_from_one_that_is_not(body: str, loops: list[str]) -> None:
    (test,) = functions_of(f"def test_it():\n    {body}\n")
    assert may_pass_over_everything(test) == loops
