"""From a YAML text to a tree whose every value knows where it stands. Knows no file, no recipe and no `extends`.

YAML is read by the rules of version 1.2: `1e-5` is a number, `no` is text, dates are text. A value is what its spelling
says: but for `!replace` before a section, a tag is a fault, whatever it claims to be.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from toolkit.recipe_faults import Fault, Path, Place, dotted, show
from toolkit.recipe_tree import Node

# A recipe has some hundred values in a dozen levels. What has more is no recipe, and would take minutes to read: PyYAML
# needs 0.1 ms for each, and aliases of aliases make billions of a small file.
_MOST_VALUES = 10_000
_DEEPEST = 100
_MOST_DIGITS = 4_000  # Python turns no longer text into a number
_TAG = "tag:yaml.org,2002:"
_REPLACE = "!replace"
_TOO_DEEP = "found sections nested too deeply to be read"


class _TooMuch(Exception):
    """A text that is no recipe by its size alone."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.line: int = mark.line


class _Yaml12(yaml.SafeLoader):
    """PyYAML's loader with the plain values of YAML 1.2: `1e-5` is a number, `no`, `1:30` and dates are text.

    It counts what it reads, and its nodes keep the tags that were written, which PyYAML takes for the values' types.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute, replaced, not shared)
    depth = 0
    values = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Begin `[` or `{`; PyYAML's scanner needs seconds for a thousand of them, before a node is composed."""
        if self.flow_level >= _DEEPEST:
            raise _TooMuch(_TOO_DEEP, self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node as PyYAML does, within limits."""
        event = self.peek_event()
        self.values += 1
        if self.values > _MOST_VALUES:
            raise _TooMuch(f"found more than {_MOST_VALUES} values", event.start_mark)
        if self.depth >= _DEEPEST:
            raise _TooMuch(_TOO_DEEP, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and not isinstance(event, yaml.AliasEvent):
            node.written_tag = event.tag  # type: ignore[attr-defined]
        return node


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Yaml12.add_implicit_resolver(
        _TAG + _name, re.compile(f"(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def compose(text: str, place: Place, faults: list[Fault], above: Path = (), *, one_line: bool = False) -> Node | None:
    """Return the tree of a YAML text; of the first syntax error only a fault.

    Args:
        text: One YAML document.
        place: Where the text is from; values get places like it, with their own lines.
        faults: Gets what is wrong.
        above: Keys that lead to what the text holds.
        one_line: Whether the text is no file of its own, so that all of it stands in one place.
    """
    reader = _Reader(place, faults, one_line)
    try:
        root = yaml.compose(text, _Yaml12)
        if root is None:
            return Node(None, reader.place(0))
        return reader.node(root, reader.place(0), above)
    except _TooMuch as error:
        faults.append(Fault(reader.place(error.line), "", str(error)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        about = "; ".join(part for part in (error.context, error.problem) if part)
        tab = " (a tab cannot indent, use spaces)" if "\\t" in about else ""
        faults.append(Fault(reader.place(mark.line if mark else 0), "", f"this is not YAML: {about[:300]}{tab}"))
    except yaml.reader.ReaderError as error:
        at = reader.place(text[: error.position].count("\n"))
        faults.append(Fault(at, "", f"found the character {chr(error.character)!r}, which no YAML file may hold"))
    return None


def text_fault(text: str) -> str:
    """Return what keeps a text from being one that files, paths and the Hub can hold; empty where nothing does."""
    if "\0" in text:
        return "found a NUL character, allowed text"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "found half of a surrogate pair, allowed text"
    return ""


def _tag_of(node: yaml.Node) -> str | None:
    """Return the tag that is written before a node; None where there is none."""
    tag: str | None = node.written_tag  # type: ignore[attr-defined]
    return tag


class _Reader:
    """Turns PyYAML's nodes into ours and collects what is wrong with them."""

    def __init__(self, source: Place, faults: list[Fault], one_line: bool) -> None:
        self.source, self.faults, self.one_line = source, faults, one_line
        self.values = 0

    def place(self, line: int) -> Place:
        return self.source if self.one_line else self.source.at(line + 1)

    def node(self, node: yaml.Node, place: Place, path: Path, inside: tuple[int, ...] = ()) -> Node:
        """Convert a node; `inside` are the nodes around it, of which it may be an alias."""
        self.values += 1
        if id(node) in inside or self.values > _MOST_VALUES:
            why = "an alias of the section it stands in" if id(node) in inside else f"more than {_MOST_VALUES} values"
            if self.values <= _MOST_VALUES + 1:
                self.faults.append(Fault(place, dotted(path), f"found {why}"))
            return Node(None, place)
        inside = (*inside, id(node))
        tag = _tag_of(node)
        replaces = tag == _REPLACE and not isinstance(node, yaml.ScalarNode)
        if tag is not None and not replaces:
            self._tag(tag, place, path)
            return Node(None, place)
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, place, path), place)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, inside), place, replaces)
        items = [
            self.node(item, self.place(item.start_mark.line), (*path, index), inside)
            for index, item in enumerate(node.value)
        ]
        return Node(items, place, replaces)

    def _tag(self, tag: str, place: Place, path: Path) -> None:
        found = tag.removeprefix(_TAG)[:60]
        standard = tag.startswith(_TAG)
        remedy = "; a value is what its spelling says, and text in quotes is text" if standard else ""
        text = f"found the tag {found!r}, allowed is !replace before a section{remedy}"
        self.faults.append(Fault(place, dotted(path), text))

    def _mapping(self, node: yaml.MappingNode, path: Path, inside: tuple[int, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        shared: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark.line)
            key = self._key(key_node, place, path)
            if key is None:
                continue
            if key_node.tag == f"{_TAG}merge":  # `<<: *anchor`: the section's own keys win, wherever they stand
                shared |= self._shared(self.node(value_node, place, (*path, key), inside), path)
                continue
            if key in entries:
                first = f"line {entries[key].place.line}"
                self.faults.append(Fault(place, dotted((*path, key)), f"found twice, it stands in {first} already"))
                continue
            entries[key] = self.node(value_node, place, (*path, key), inside)
        return shared | entries

    def _key(self, node: yaml.Node, place: Place, path: Path) -> str | None:
        """Return a key, or None and a fault."""
        if not isinstance(node, yaml.ScalarNode):
            self.faults.append(Fault(place, dotted(path), "found a list or mapping as a key, allowed text"))
        elif tag := _tag_of(node):
            self._tag(tag, place, path)
        else:
            return self._text(node.value, place, path)
        return None

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
            case "int" if len(text) < _MOST_DIGITS:
                return int(text)
            case "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "int":
                self.faults.append(Fault(place, dotted(path), f"found a number of {len(text)} digits"))
                return None
            case _:  # text, `<<` or `=` where no key stands included
                return self._text(text, place, path)

    def _text(self, text: str, place: Place, path: Path) -> str | None:
        fault = text_fault(text)
        if fault:
            self.faults.append(Fault(place, dotted(path), fault))
        return None if fault else text
