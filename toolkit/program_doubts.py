"""What the interpreter runs otherwise than CPython, found in a program's syntax tree before it runs.

    sets        are in the order of insertion there, in CPython in that of their hashes
    iterators   of `map`, `zip` and their like and of generator expressions are made whole at once there, so they can be
                gone through twice, do not see what changes meanwhile, and never stop early
    handlers    catch its own limitations along with a program's mistakes, and read its own words
    re          is another engine there, with empty matches and classes of characters of its own
    the rest    a few functions of `math` that differ in their last digits, keys that are equal and of different types

A program is handed on to CPython unless what it makes of these is plainly the same. Reads no program as safe: that is
what the tiers are for.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import NamedTuple

LAZY = frozenset(["map", "filter", "zip", "enumerate", "reversed"])
# Of these, only what goes through all of its argument before anything else runs.
_CONSUMERS = frozenset(["list", "tuple", "sorted", "sum", "min", "max", "dict", "any", "all"])
_CONSUMING_METHODS = frozenset(["join", "prod", "fsum"])
_MUTATING = """append appendleft extend extendleft insert remove pop popleft popitem clear sort reverse rotate add
discard update setdefault difference_update intersection_update symmetric_difference_update move_to_end subtract"""
_MUTATORS = frozenset(_MUTATING.split())
_CONVERTERS = frozenset(["int", "float", "str", "bool", "len", "abs", "ord", "chr", "list", "tuple"])  # change nothing
_SETS = frozenset(("set", "frozenset"))
_ANY_ORDER = frozenset(["len", "sorted", "bool", "min", "max"])
_TELL_OF_SETS = frozenset(["issubset", "issuperset", "isdisjoint"])
_MAKE_SETS = frozenset(["union", "intersection", "difference", "symmetric_difference"])
_CHANGE_SETS = frozenset(["add", "discard", "remove", "update", "clear"])
_OTHER_DIGITS = frozenset(["atanh", "cbrt", "erf", "erfc", "gamma", "lgamma"])
_OF_THE_PROCESS = frozenset(("id", "hash"))
# Raised by both for the same reasons, so a handler of these catches the same.
_SAFE_HANDLERS = frozenset(("ZeroDivisionError", "IndexError", "KeyError"))


class Doubts(NamedTuple):
    """What speaks against running a program in the interpreter.

    Attributes:
        reason: Why its value may be another one there, empty where nothing says so.
        is_lazy: Whether CPython works out in steps what is made at once there, and may need less of everything.
        is_plain: Whether it has neither that nor classes, so that CPython raises what is raised there.
    """

    reason: str
    is_lazy: bool
    is_plain: bool


def doubts(tree: ast.Module) -> Doubts:
    """Return the doubts about a program."""
    look = _Look(tree)
    reason = next((reason for node in look.nodes if (reason := look.reason(node))), "")
    # Of the special methods of classes the interpreter knows some.
    return Doubts(reason, look.lazy, not (look.lazy or any(isinstance(node, ast.ClassDef) for node in look.nodes)))


class _Look:
    """A look at one program."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))
        self._parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self._functions = {node.name: node for node in self.nodes if isinstance(node, ast.FunctionDef)}
        self._bound = set(map(_bound_name, self.nodes))
        self._shares = any(isinstance(node, ast.Global | ast.Nonlocal) for node in self.nodes)
        aliases = (node for node in self.nodes if isinstance(node, ast.alias) and node.name == "re")
        self._regex = next((alias.asname or alias.name for alias in aliases), "")
        self.lazy = any(map(_makes_iterator, self.nodes))
        made = (self._parents[node] for node in self.nodes if _makes_set(node))
        self._set_names = {name for parent in made for name in _assigned(parent)}

    def reason(self, node: ast.AST) -> str:
        """Return what is doubtful about one node."""
        if _makes_iterator(node) and not (self._is_pure(node) and self._is_used_up(node)):
            return "an iterator that is not used up at once"
        if _makes_set(node) and not (_assigned(self._parents[node]) or self._needs_no_order(node)):
            return "the order of a set"
        if isinstance(node, ast.Name) and node.id in self._set_names and not self._needs_no_order(node):
            return "the order of a set"
        if isinstance(node, ast.Try) and not all(map(self._is_safe, node.handlers)):
            return "a handler of errors"
        if isinstance(node, ast.Name) and (_is_hidden(node.id) or node.id in _OF_THE_PROCESS - self._bound):
            return f"the name {node.id}"
        if (isinstance(node, ast.Name) and node.id == self._regex) or _is_from(node, "re"):
            return "regular expressions"
        if isinstance(node, ast.Attribute | ast.alias) and _last_name(node) in _OTHER_DIGITS:
            return f"the last digits of {_last_name(node)}"
        if isinstance(node, ast.Return) and not self._is_in_function(node):
            return "a return outside a function"
        return "keys that are equal and of different types" if _mixes_keys(node) else ""

    def _is_in_function(self, node: ast.AST) -> bool:
        while (node := self._parents[node]) and not isinstance(node, ast.Module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return True
        return False

    def _is_safe(self, handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        known = all(one is not None and _is_named(one, _SAFE_HANDLERS) for one in caught)
        return known and handler.name is None and not self.lazy

    def _is_pure(self, node: ast.AST) -> bool:
        """Whether working out an iterator changes nothing, so that it does not matter when it is done, and how far."""
        inner = list(ast.walk(node))
        called = {self._functions[one.id] for one in inner if isinstance(one, ast.Name) and one.id in self._functions}
        within = [*inner, *(each for function in called for each in ast.walk(function))]
        return not any(isinstance(one, ast.NamedExpr) or _mutates(one) for one in within) and not (
            self._shares and called
        )

    def _is_used_up(self, node: ast.AST) -> bool:
        """Whether an iterator is gone through right where it is made."""
        parent = self._parents[node]
        if isinstance(parent, ast.Call) and node in parent.args:
            if isinstance(parent.func, ast.Attribute):
                return parent.func.attr in _CONSUMING_METHODS and len(parent.args) == 1
            name = parent.func.id if isinstance(parent.func, ast.Name) else ""
            if name in self._bound:
                return False
            if name in LAZY:
                return self._is_used_up(parent)
            is_first = parent.args[0] is node
            return name in _CONSUMERS and is_first and (name == "sum" or len(parent.args) == 1)
        if isinstance(parent, ast.comprehension):
            return parent.iter is node and not self._changes(self._parents[parent], node)
        if isinstance(parent, ast.For):
            return parent.iter is node and self._is_plain(node) and not self._changes(parent, node)
        if isinstance(parent, ast.Assign):
            return len(parent.targets) == 1 and isinstance(parent.targets[0], ast.Tuple | ast.List)
        return isinstance(parent, ast.Starred)

    def _is_plain(self, node: ast.AST) -> bool:
        """Whether each step of an iterator only hands over what is there."""
        if not isinstance(node, ast.Call):
            return False
        function, *rest = node.args or [node]
        if _is_named(node.func, ("map", "filter")):
            known = isinstance(function, ast.Constant) or (
                isinstance(function, ast.Name) and function.id in _CONVERTERS
            )
            return known and all(self._is_plain(one) for one in rest if _makes_iterator(one))
        return all(self._is_plain(one) for one in node.args if _makes_iterator(one))

    def _changes(self, loop: ast.AST, iterator: ast.AST) -> bool:
        """Whether a loop changes something that its iterator is made of."""
        names = {one.id for one in ast.walk(iterator) if isinstance(one, ast.Name)}
        changed = (one for one in ast.walk(loop) if _mutates(one))
        return any(name in names for one in changed for name in _names(one))

    def _needs_no_order(self, node: ast.AST) -> bool:
        """Whether what is done with a set is the same in whatever order it is."""
        parent = self._parents[node]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(parent, ast.Compare):
            return not any(isinstance(one, ast.Is | ast.IsNot) for one in parent.ops)
        if isinstance(parent, ast.BinOp | ast.AugAssign):
            return isinstance(parent, ast.AugAssign) or self._needs_no_order(parent)
        if isinstance(parent, ast.Attribute):
            if parent.attr in _MAKE_SETS:
                return self._needs_no_order(self._parents[parent])
            changes = parent.attr in _CHANGE_SETS and isinstance(self._parents[self._parents[parent]], ast.Expr)
            return changes or parent.attr in _TELL_OF_SETS
        if isinstance(parent, ast.Call) and parent.args[:1] == [node] and not parent.keywords:
            name = parent.func.id if isinstance(parent.func, ast.Name) else ""
            return len(parent.args) == 1 and (name in _ANY_ORDER - self._bound)
        return False


def _is_named(node: ast.AST, names: Collection[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _makes_iterator(node: ast.AST) -> bool:
    return isinstance(node, ast.GeneratorExp) or (isinstance(node, ast.Call) and _is_named(node.func, LAZY))


def _makes_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Call) and _is_named(node.func, _SETS))


def _assigned(node: ast.AST) -> list[str]:
    """Return the name that a statement gives to a value, none where it does anything else."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return [node.targets[0].id]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def _mutates(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _MUTATORS or not isinstance(node.ctx, ast.Load)
    return (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)) or isinstance(node, ast.AugAssign)


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names behind what is changed: `a` of `a.append`, `a[0].b = 1` and `a += 1`."""
    inner = node.target if isinstance(node, ast.AugAssign) else node
    return (one.id for one in ast.walk(inner) if isinstance(one, ast.Name))


def _bound_name(node: ast.AST) -> str:
    """Return the name that a node binds, empty where it binds none."""
    if isinstance(node, ast.Name):
        return "" if isinstance(node.ctx, ast.Load) else node.id
    if isinstance(node, ast.alias):
        return node.asname or node.name
    return getattr(node, "name", None) or getattr(node, "arg", None) or ""


def _last_name(node: ast.Attribute | ast.alias) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.name


def _is_from(node: ast.AST, module: str) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == module


def _is_hidden(name: str) -> bool:
    return name.startswith("__") and name != "__name__"


def _mixes_keys(node: ast.AST) -> bool:
    """Whether keys such as 1, 1.0 and True are used for one another: which of them is kept differs."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, bool | float)
    if not isinstance(node, ast.Dict):
        return False
    keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
    return len(set(keys)) < len({(type(key), key) for key in keys})
