"""The tree of a recipe's values, each with the place where it stands; how layers of it combine.

Knows nothing of what the keys mean, but for the few that choose between alternatives (`_inherited`).

How layers combine (a file over the one it extends, each override over what came before):

- a mapping is merged with a mapping, key by key; anything else replaces what was there, lists included;
- a mapping over a list changes items of the list, named by their `name` or by their position from 0;
- `!replace` before a mapping or a list in a file replaces instead of merging;
- a layer that chooses another alternative drops what belonged to the old one: `student.model_name_or_path` drops an
  inherited `from_config`, `tokenizer` and `model_revision`, and `from_config` an inherited `model_name_or_path` and
  `model_revision`; another `kind` of teacher, `source` of problems or `model_type` starts its section afresh; another
  `dataset.builder` drops `dataset.config`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import nearest
from toolkit.recipe_faults import Fault, Path, Place, dotted
from toolkit.training_fields import RENAMED


@dataclass(frozen=True)
class Node:
    """A value of a recipe and where it stands.

    Attributes:
        value: A text, number, boolean or null; or nodes, in a list or in a mapping by their keys.
        place: Where its key, or its item of a list, stands.
        replaces: Whether it replaces what it is laid over instead of being merged with it.
        was: Deprecated name that stands there in place of its key; empty for most.
    """

    value: Any
    place: Place
    replaces: bool = False
    was: str = ""

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def nearest_to(self, path: Path) -> tuple[Node, int]:
        """Return the node at a path, or the last one there is on the way to it, and how many steps lead there."""
        here = self
        for steps, part in enumerate(path):
            inside = isinstance(here.value, dict) and part in here.value
            if not inside and not (isinstance(here.value, list) and isinstance(part, int) and part < len(here.value)):
                return here, steps
            here = here.value[part]
        return here, len(path)


def with_current_names(node: Node, path: Path, faults: list[Fault]) -> Node:
    """Return a layer in which fields of `training` have their current names, so that layers meet under one name."""
    if isinstance(node.value, list):
        return replace(node, value=[with_current_names(each, (*path, i), faults) for i, each in enumerate(node.value)])
    if not isinstance(node.value, dict):
        return node
    renamed: Mapping[str, str] = RENAMED if path[-1:] == ("training",) else {}
    entries: dict[str, Node] = {}
    for key, inner in node.value.items():
        name = renamed.get(str(key), str(key))
        if name in entries or (name != key and name in node.value):
            text = f"found {key!r} and {name!r}, allowed one of them: the first is the deprecated name of the other"
            faults.append(Fault(inner.place, dotted((*path, key)), text))
            continue
        inner = with_current_names(inner, (*path, name), faults)
        entries[name] = inner if name == key else replace(inner, was=key)
    return replace(node, value=entries)


def deprecations(node: Node, path: Path = ()) -> Iterator[tuple[Node, Path]]:
    """Yield every value of a tree that stands under a deprecated name, with its path under the current one."""
    if node.was:
        yield node, path
    if isinstance(node.value, (dict, list)):
        for key, inner in node.value.items() if isinstance(node.value, dict) else enumerate(node.value):
            yield from deprecations(inner, (*path, key))


def merge(base: Node, layer: Node, path: Path, faults: list[Fault]) -> Node:
    """Return a layer laid over what it is based on; a merged section stands where it first stood."""
    if layer.replaces or not isinstance(layer.value, dict):
        return layer
    if isinstance(base.value, list):
        items = list(base.value)
        for key, node in layer.value.items():
            index = _item(items, key)
            if index is None:
                names = [str(item.value["name"].value) for item in items if _named(item)]
                allowed = f"a position from 0 to {len(items) - 1}" if items else "nothing, the list is empty"
                allowed = f"the names {', '.join(names)} or {allowed}" if names else allowed
                text = f"found {key!r}, allowed {allowed}{nearest(key, names)}"
                faults.append(Fault(node.place, dotted((*path, key)), text))
                continue
            items[index] = merge(items[index], node, (*path, index), faults)
        return replace(base, value=items)
    if isinstance(base.value, str) and path[-2:-1] == ("target",):
        base = Node({"text": base}, base.place)  # the short form of a segment
    if not isinstance(base.value, dict):
        return layer
    merged = _inherited(base.value, layer.value, path)
    for key, node in layer.value.items():
        merged[key] = merge(merged[key], node, (*path, key), faults) if key in merged else node
    return replace(base, value=merged)


def inheritable(base: Node) -> Node:
    """Return a recipe's tree as another one extends it: without the licence, which is a statement on its own student.

    Another base model, other data or other terms of a teacher make another licence; one that is taken over unseen would
    be published as if somebody had looked.
    """
    publish = base.value.get("publish") if isinstance(base.value, dict) else None
    if publish is None or not isinstance(publish.value, dict):
        return base
    kept = {key: node for key, node in publish.value.items() if key != "license"}
    return replace(base, value={**base.value, "publish": replace(publish, value=kept)})


def _named(item: Node) -> bool:
    return isinstance(item.value, dict) and "name" in item.value


def _item(items: Sequence[Node], key: str) -> int | None:
    """Return the position of the item of that name, or at that position."""
    for index, item in enumerate(items):
        if _named(item) and item.value["name"].value == key:
            return index
    return int(key) if key.isdecimal() and int(key) < len(items) else None


def _inherited(base: dict[str, Node], layer: dict[str, Node], path: Path) -> dict[str, Node]:
    """Return what a section inherits: all of it, but for what belonged to an alternative no longer chosen."""

    def sets(key: str) -> bool:
        return key in layer and layer[key].value is not None

    def changes(key: str) -> bool:
        return sets(key) and (key not in base or base[key].value != layer[key].value)

    # An item of a list of teachers is a section as the only teacher is one.
    section = next((part for part in reversed(path) if not isinstance(part, int)), None)
    dropped: set[str] = set()
    if path == ("student",) and sets("model_name_or_path") and not sets("from_config"):
        dropped = {"from_config", "tokenizer"} | ({"model_revision"} if changes("model_name_or_path") else set())
    elif path == ("student",) and sets("from_config") and not sets("model_name_or_path"):
        dropped = {"model_name_or_path", "model_revision"}
    elif path == ("dataset",) and changes("builder"):
        dropped = {"config"}
    elif path[-2:-1] == ("sets",):
        own = "split" in layer and isinstance(layer["split"].value, str)
        dropped = set(base) if own or changes("source") else set()
    elif changes({"teacher": "kind", "problems": "source", "from_config": "model_type"}.get(str(section), "")):
        dropped = set(base)
    return {key: node for key, node in base.items() if key not in dropped}


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every plain value of a tree with its path; an empty section has none."""
    if isinstance(node.value, (dict, list)):
        for key, inner in node.value.items() if isinstance(node.value, dict) else enumerate(node.value):
            yield from leaves(inner, (*path, key))
    else:
        yield path, node
