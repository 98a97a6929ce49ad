"""From recipe files to one tree whose every value knows where it stands: YAML, `extends`, overrides.

How the layers combine is in `recipe_tree`, what the keys mean in `recipe`.

YAML is read by the rules of version 1.2: `1e-5` is a number, `no` is text, dates are text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import yaml

from toolkit.errors import nearest
from toolkit.recipe_faults import Fault, Path, Place, dotted, show
from toolkit.recipe_tree import Node, inheritable, interpolated, merge, with_current_names

_MOST_VALUES = 20_000  # a recipe has some hundred; aliases of aliases can make a small file explode
_TAG = "tag:yaml.org,2002:"
_SECTIONS = (_TAG + "map", _TAG + "seq")


def read_recipe(path: str, overrides: Sequence[str] = ()) -> tuple[Node | None, list[Fault]]:
    """Read a recipe, what it extends and what overrides it.

    Args:
        path: The recipe's file.
        overrides: Texts such as `stages.1.views.wrong.coefficient=-0.05`, values are YAML, the last one wins.

    Returns:
        The tree, or None where there is nothing to go on with, and every fault found on the way.
    """
    faults: list[Fault] = []
    tree = _extended(os.path.normpath(path), Place(path), "", (), faults)
    for text in overrides:
        layer = _override(text, faults)
        if tree is not None and layer is not None:
            tree = merge(tree, with_current_names(layer, (), faults), (), faults)
    return (tree and interpolated(tree, faults)), faults


def _override(text: str, faults: list[Fault]) -> Node | None:
    """Return an override as a layer: nested mappings down to its value."""
    place = Place(f"override {text!r}")
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+|\[\d+\])*", key):
        faults.append(Fault(place, "", "allowed is KEY=VALUE with a dotted key, e.g. stages.0.training.seed=1"))
        return None
    layer = _compose(value, place.source, faults, line=0)
    for part in reversed(re.findall(r"[\w-]+", key)):
        layer = layer and Node({part: layer}, place)
    return layer


def _extended(path: str, place: Place, key: str, above: tuple[str, ...], faults: list[Fault]) -> Node | None:
    """Return a file laid over those it extends; `place` and `key` are where the file is named."""
    identity = os.path.realpath(path)
    if identity in above:
        circle = " -> ".join(os.path.basename(name) for name in (*above, identity))
        faults.append(Fault(place, key, f"found a circle, {circle}; a recipe cannot extend itself"))
        return None
    text = _text(path, place, key, faults)
    tree = None if text is None else _compose(text, path, faults)
    if tree is None:
        return None
    if not isinstance(tree.value, dict):
        faults.append(Fault(tree.place, "", f"found {show(tree.plain())}, allowed a mapping of a recipe's sections"))
        return None
    sections = dict(tree.value)
    extends = sections.pop("extends", None)
    tree = with_current_names(replace(tree, value=sections), (), faults)
    if extends is None:
        return tree
    if not isinstance(extends.value, str):
        faults.append(Fault(extends.place, "extends", f"found {show(extends.plain())}, allowed the path of a recipe"))
        return None
    target = os.path.normpath(os.path.join(os.path.dirname(path), extends.value))
    base = _extended(target, extends.place, "extends", (*above, identity), faults)
    return None if base is None else replace(merge(inheritable(base), tree, (), faults), place=tree.place)


def _text(path: str, place: Place, key: str, faults: list[Fault]) -> str | None:
    """Return the text of a file, or None and a fault that says why there is none."""

    def wrong(text: str, at: Place = place, about: str = key) -> None:
        faults.append(Fault(at, about, f"{path!r} {text}" if about else text))

    file = FilePath(path)
    folder = file.parent
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        if folder.is_dir():
            hint = nearest(file.name, os.listdir(folder))
            wrong(f"there is no such file{hint}")
        else:
            wrong(f"there is no such file, nor a folder {str(folder)!r}")
        return None
    except IsADirectoryError:
        recipes = ", ".join(sorted(str(each) for each in file.glob("*.yaml"))) or "no recipes"
        wrong(f"found a folder, allowed the file of a recipe; it holds {recipes}")
        return None
    except (OSError, ValueError) as error:
        wrong(f"the file cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        wrong(f"found the byte 0x{content[error.start]:02x}, allowed UTF-8 text", Place(path, line), "")
        return None


class _Yaml12(yaml.SafeLoader):
    """PyYAML's loader with the plain values of YAML 1.2: `1e-5` is a number, `no`, `1:30` and dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute, replaced, not shared)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Yaml12.add_implicit_resolver(_TAG + _tag, re.compile(f"(?:{_pattern})$"), ["" if c == "\0" else c for c in _first])


def _compose(text: str, source: str, faults: list[Fault], line: int | None = None) -> Node | None:
    """Return the tree of a YAML text; of the first syntax error only a fault.

    Args:
        text: One YAML document.
        source: What its places are called.
        faults: Gets what is wrong.
        line: The one line of every place, where the text is not a file of its own.
    """
    reader = _Reader(source, faults, line)
    try:
        root = yaml.compose(text, _Yaml12)
        if root is None:
            return Node(None, reader.place(0))
        return reader.node(root, reader.place(0), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        about = "; ".join(part for part in (error.context, error.problem) if part)
        tab = " (a tab cannot indent, use spaces)" if "\\t" in about else ""
        faults.append(Fault(reader.place(mark.line if mark else 0), "", f"this is not YAML: {about}{tab}"))
    except yaml.reader.ReaderError as error:
        at = reader.place(text[: error.position].count("\n"))
        faults.append(Fault(at, "", f"found the character {chr(error.character)!r}, which no YAML file may hold"))
    except RecursionError:
        faults.append(Fault(reader.place(0), "", "found sections nested too deeply to be read"))
    return None


class _Reader:
    """Turns PyYAML's nodes into ours and collects what is wrong with them."""

    def __init__(self, source: str, faults: list[Fault], line: int | None) -> None:
        self.source, self.faults, self.line = source, faults, line
        self.values = 0

    def place(self, line: int) -> Place:
        return Place(self.source, line + 1 if self.line is None else self.line)

    def node(self, node: yaml.Node, place: Place, path: Path, inside: tuple[int, ...] = ()) -> Node:
        """Convert a node; `inside` are the nodes around it, of which it may be an alias."""
        self.values += 1
        if id(node) in inside or self.values > _MOST_VALUES:
            why = "an alias of the section it stands in" if id(node) in inside else f"more than {_MOST_VALUES} values"
            if self.values <= _MOST_VALUES + 1:
                self.faults.append(Fault(place, dotted(path), f"found {why}"))
            return Node(None, place)
        inside = (*inside, id(node))
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, place, path), place)
        replaces = node.tag == "!replace"
        if not replaces and node.tag not in _SECTIONS:
            self._tag(node, place, path)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, inside), place, replaces)
        items = [
            self.node(item, self.place(item.start_mark.line), (*path, index), inside)
            for index, item in enumerate(node.value)
        ]
        return Node(items, place, replaces)

    def _tag(self, node: yaml.Node, place: Place, path: Path) -> None:
        found = node.tag.removeprefix(_TAG)
        self.faults.append(Fault(place, dotted(path), f"found the tag {found!r}, allowed is !replace before a section"))

    def _mapping(self, node: yaml.MappingNode, path: Path, inside: tuple[int, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        shared: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark.line)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault(place, dotted(path), "found a list or mapping as a key, allowed text"))
                continue
            key = key_node.value
            if key_node.tag == f"{_TAG}merge":  # `<<: *anchor`: the section's own keys win, wherever they stand
                shared |= self._shared(self.node(value_node, place, (*path, key), inside), path)
                continue
            if key in entries:
                first = f"line {entries[key].place.line}"
                self.faults.append(Fault(place, dotted((*path, key)), f"found twice, it stands in {first} already"))
                continue
            entries[key] = self.node(value_node, place, (*path, key), inside)
        return shared | entries

    def _shared(self, node: Node, path: Path) -> dict[str, Node]:
        """Return the entries that `<<` brings from a section, or from several of which the first wins."""
        sections = node.value if isinstance(node.value, list) else [node]
        if not all(isinstance(section.value, dict) for section in sections):
            found = f"found {show(node.plain())}, allowed a section (<<: *anchor) or a list of sections"
            self.faults.append(Fault(node.place, dotted((*path, "<<")), found))
            return {}
        return {key: entry for section in reversed(sections) for key, entry in section.value.items()}

    def _scalar(self, node: yaml.ScalarNode, place: Place, path: Path) -> Any:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) < 400:
                return int(text)
            case "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "str" | "int":
                if any("\ud800" <= character <= "\udfff" for character in text):
                    self.faults.append(Fault(place, dotted(path), "found half of a surrogate pair, allowed text"))
                    return None
                return text
            case _:
                self._tag(node, place, path)
                return None
