"""The small faults that are put into a module, one at a time: mutmut's operators and a few of our own.

mutmut's own runner keeps one mutated file of all mutants and picks one while it runs; it leaves alone what stands
outside functions, below decorators and in what a subprocess imports, which here are patterns, tables, properties and
workers. So only its operators are used, and each mutant is a whole source text.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

Operator = Callable[[cst.CSTNode], Iterator[cst.CSTNode]]
_SWAPPED_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_MESSAGES = m.Raise() | m.Call(func=m.Attribute(value=m.Name("logger")))


@dataclass(frozen=True)
class Mutant:
    """A module with one fault.

    Attributes:
        line: Where it is, from 1 on.
        before: The lines that the fault replaces, without indentation.
        after: What they are replaced by.
        source: The whole module.
    """

    line: int
    before: str
    after: str
    source: str


def mutants(source: str, seed: str) -> Iterator[Mutant]:
    """Yield every mutant of a module that is valid Python, each source text once, in a drawn order."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    random.Random(seed).shuffle(visitor.changes)
    seen = {source}
    for node, mutated in visitor.changes:
        changed = wrapper.module.deep_replace(node, mutated).code
        if changed not in seen and _is_valid(changed):
            seen.add(changed)
            yield _described(source, changed)


def _is_valid(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _described(source: str, changed: str) -> Mutant:
    """Say which lines differ: a mutant is known by them, since line numbers move with every change of a module."""
    before, after = source.splitlines(), changed.splitlines()
    blocks = list(difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes())
    differing = [code for code in blocks if code[0] != "equal"]
    first, last = differing[0], differing[-1]
    old, new = before[first[1] : last[2]], after[first[3] : last[4]]
    return Mutant(first[1] + 1, _on_one_line(old), _on_one_line(new), changed)


def _on_one_line(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


class _Visitor(cst.CSTVisitor):
    """Collect (node, what stands in its place); what has no bearing on behaviour is passed over."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.changes: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self._in_message = 0
        self._unordered: set[cst.CSTNode] = set()  # `x in (a, b)` is `x in (b, a)`

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_passed_over(node):
            return False
        self._in_message += m.matches(node, _MESSAGES)
        if m.matches(node, m.ComparisonTarget(operator=m.In() | m.NotIn(), comparator=m.Tuple())):
            self._unordered.add(cst.ensure_type(node, cst.ComparisonTarget).comparator)
        for kind, operator in [*mutation_operators, *_OWN]:
            if not isinstance(node, kind) or (operator is operator_string and self._in_message):
                continue
            if operator is _pair_swapped and node in self._unordered:
                continue
            mutated = [one for one in operator(node) if not _is_same(node, one)]
            # Of a string in capitals, small letters and crosses one is enough: all three are another string.
            self.changes += [(node, one) for one in (mutated[:1] if operator is operator_string else mutated)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if not _is_passed_over(node):
            self._in_message -= m.matches(node, _MESSAGES)


def _is_passed_over(node: cst.CSTNode) -> bool:
    """Whether this is read by nobody at run time: annotations, docstrings, imports for types; or only as a message."""
    return (
        isinstance(node, (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Assert))
        or m.matches(node, m.If(test=m.Name("TYPE_CHECKING")))
        or m.matches(node, m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())]))
        or m.matches(node, m.Expr(value=m.Call(func=m.Attribute(value=m.Name("logger")))))
        or m.matches(node, m.Assign(targets=[m.AssignTarget(target=m.Name("logger"))]))
        # the name of a type: `Rows = Sequence[Mapping[str, Any]]`
        or m.matches(node, m.Assign(value=m.Subscript(value=m.MatchIfTrue(_is_a_type))))
        or m.matches(node, m.Subscript(value=m.MatchIfTrue(_is_a_type)))
        or m.matches(node, m.Call(func=m.Name("cast") | m.Name("TypeVar")))
        or m.matches(node, m.Arg(keyword=m.Name("strict")))
    )


def _is_a_type(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and (node.value[:1].isupper() and node.value.upper() != node.value)


def _is_same(node: cst.CSTNode, mutated: cst.CSTNode) -> bool:
    """Whether the change shows in nothing: False and None where a truth is asked for, and `strict` where zip is ours.

    `strict=True` is an assertion against our own mistakes, like `assert`.
    """
    if not isinstance(node, cst.Call) or not isinstance(mutated, cst.Call):
        return False
    if len(node.args) != len(mutated.args):
        gone = [arg for arg in node.args if not any(arg is kept for kept in mutated.args)]
        return any(m.matches(arg, m.Arg(keyword=m.Name("strict"))) for arg in gone)
    return any(
        (m.matches(old, m.Arg(value=m.Name("False"))) and m.matches(new, m.Arg(value=m.Name("None"))))
        or (old is not new and m.matches(old, m.Arg(keyword=m.Name("strict"))))
        for old, new in zip(node.args, mutated.args, strict=True)
    )


def _statement_deleted(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if m.matches(node, m.Expr(value=m.Call()) | m.Raise() | m.AugAssign()):
        yield cst.Pass()


def _nothing_returned(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"))


def _condition_turned(node: cst.If | cst.While | cst.CompIf) -> Iterator[cst.CSTNode]:
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


def _condition_dropped(node: cst.CompFor) -> Iterator[cst.CSTNode]:
    if node.ifs:
        yield node.with_changes(ifs=())


def _operand_dropped(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    for side in (node.left, node.right):
        yield side.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _pair_swapped(node: cst.Tuple) -> Iterator[cst.CSTNode]:
    if len(node.elements) == 2:
        first, second = node.elements
        yield node.with_changes(
            elements=[first.with_changes(value=second.value), second.with_changes(value=first.value)]
        )


def _arguments_swapped(node: cst.Call) -> Iterator[cst.CSTNode]:
    symmetric = m.matches(node.func, m.Name("min") | m.Name("max"))
    if len(node.args) > 1 and not symmetric and not any(arg.keyword or arg.star for arg in node.args[:2]):
        first, second, *rest = node.args
        swapped = [first.with_changes(value=second.value), second.with_changes(value=first.value), *rest]
        yield node.with_changes(args=swapped)


def _name_swapped(node: cst.Call) -> Iterator[cst.CSTNode]:
    if isinstance(node.func, cst.Name) and node.func.value in _SWAPPED_NAMES:
        yield node.with_changes(func=cst.Name(_SWAPPED_NAMES[node.func.value]))


def _number_lowered(node: cst.Integer) -> Iterator[cst.CSTNode]:
    if node.evaluated_value > 0:
        yield node.with_changes(value=str(node.evaluated_value - 1))


_OWN: list[tuple[type, Operator]] = [
    (cst.BaseSmallStatement, _statement_deleted),
    (cst.Return, _nothing_returned),
    (cst.If, _condition_turned),
    (cst.While, _condition_turned),
    (cst.CompIf, _condition_turned),
    (cst.CompFor, _condition_dropped),
    (cst.BooleanOperation, _operand_dropped),
    (cst.Tuple, _pair_swapped),
    (cst.Call, _arguments_swapped),
    (cst.Call, _name_swapped),
    (cst.Integer, _number_lowered),
]
