r"""`${...}` in a recipe, resolved by OmegaConf: `${oc.env:NAME,default}`, `${recipe.name}`.

A dollar sign that is meant as such before a brace is written `\${`. A recipe is recorded with its values, so a variable
that holds a secret is refused, however its name is written: what OmegaConf comes to ask for is looked at, not the text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from toolkit.recipe_faults import Fault, Path, Place, dotted, show
from toolkit.recipe_tree import Node, leaves
from toolkit.secret_scan import Secrets, names_a_secret

_REFERENCE = re.compile(r"\s*\$\{\s*([\w-]+(?:\.[\w-]+|\[\d+\])*)\s*\}\s*")
_CREDENTIALS = re.compile(r"://[^/\s@]*:[^/\s@]+@")  # http://user:password@host
_VARIABLE = re.compile(r"\s*\$\{\s*oc\.env\s*:\s*['\"]?([^\s,}'\"]+)")
# OmegaConf's grammar takes a millisecond for each, and much longer for what refers to what refers to something else.
_MOST_TEXTS = 200
_MOST_REFERENCES = 50  # in one text


def interpolated(tree: Node, faults: list[Fault]) -> Node:
    """Return the tree with every `${...}` resolved, each in the place of what it replaces.

    Args:
        tree: A recipe's tree.
        faults: Gets what cannot be resolved.
    """
    written = {path: node for path, node in leaves(tree) if isinstance(node.value, str) and "${" in node.value}
    if not written:
        return tree
    if len(written) > _MOST_TEXTS:
        path, node = list(written.items())[_MOST_TEXTS]
        faults.append(Fault(node.place, dotted(path), f"found ${{ in more than {_MOST_TEXTS} values"))
        return tree
    from omegaconf import OmegaConf

    keys = {node.value for path, node in leaves(tree) if path[-1:] == ("api_key_env",) and isinstance(node.value, str)}
    found: dict[Path, Any] = {}
    with _without_secrets(keys):
        for path, node in written.items():
            _try(found, path, node, faults, lambda node=node: _grammatical(node.value))
        broken = set(found)
        root = OmegaConf.create(_substituted(tree, (), found).plain())
        for path in [path for path in written if path not in broken]:  # faults are told in the recipe's order
            _try(found, path, written[path], faults, lambda path=path: _value_at(root, path))
    origins = {path: _origin(tree, node) for path, node in written.items()}
    return _substituted(tree, (), found, origins)


def _try(found: dict[Path, Any], path: Path, node: Node, faults: list[Fault], resolve: Any) -> None:
    """Note what an interpolation gives; None and a fault where it gives nothing."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = resolve()
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        found[path] = None
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        text = rf"found {show(node.value)}, {reason}; plain text is written \${{"
        faults.append(Fault(node.place, dotted(path), text))
    else:
        if value is not _OPEN:
            found[path] = value


_OPEN = object()


def _grammatical(text: str) -> object:
    """Check the grammar of a text alone."""
    from omegaconf import OmegaConf

    if text.count("${") > _MOST_REFERENCES:
        raise ValueError(f"allowed at most {_MOST_REFERENCES} times ${{ in one text")
    OmegaConf.create([text])
    return _OPEN


def _value_at(root: Any, path: Path) -> Any:
    from omegaconf import OmegaConf

    for part in path:
        root = root[part]
    return OmegaConf.to_container(root, resolve=True) if OmegaConf.is_config(root) else root


@contextmanager
def _without_secrets(names: Collection[str]) -> Iterator[None]:
    """Have OmegaConf refuse variables that hold secrets, those of the names included."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    patterns = Secrets({})

    def env(name: Any, *default: Any) -> Any:
        value = os.environ.get(str(name), "")
        if (
            names_a_secret(str(name))
            or str(name) in names
            or any(patterns.find(os.fsencode(value)))
            or _CREDENTIALS.search(value)
        ):
            raise ValueError(f"oc.env:{name} looks like a secret, and a recipe is recorded with its values")
        return oc.env(name, *default)

    OmegaConf.register_resolver("oc.env", env, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_resolver("oc.env", oc.env, replace=True)


def _origin(tree: Node, node: Node) -> Node | None:
    """Return the node in whose place a text's paths are: what it refers to, or itself; None where there is none."""
    for _ in range(_MOST_TEXTS):
        text = node.value if isinstance(node.value, str) else ""
        if (variable := _VARIABLE.match(text)) and variable[1] in os.environ:
            # What begins with a variable is typed where the command is, as an override is.
            return replace(node, place=replace(node.place, folder=""))
        match = _REFERENCE.fullmatch(text)
        if match is None:
            return node
        path = [int(part) if part.isdecimal() else part for part in re.findall(r"[\w-]+", match[1])]
        target, steps = tree.nearest_to(tuple(path))
        if steps < len(path):
            return None
        node = target
    return None


def _substituted(
    node: Node, path: Path, values: dict[Path, Any], origins: dict[Path, Node | None] | None = None
) -> Node:
    """Return the tree with other plain values at some paths, each in the place of what it replaces."""
    if path in values:
        return _placed(values[path], node.place, (origins or {}).get(path))
    if isinstance(node.value, dict):
        inner = {key: _substituted(each, (*path, key), values, origins) for key, each in node.value.items()}
        return replace(node, value=inner)
    if isinstance(node.value, list):
        items = [_substituted(each, (*path, index), values, origins) for index, each in enumerate(node.value)]
        return replace(node, value=items)
    return node


def _placed(value: Any, place: Place, origin: Node | None) -> Node:
    """Return a value as nodes in one place; a path that was written in another file stays relative to that one."""
    if isinstance(value, dict):
        inner = origin.value if origin is not None and isinstance(origin.value, dict) else {}
        return Node({str(key): _placed(each, place, inner.get(str(key))) for key, each in value.items()}, place)
    if isinstance(value, list):
        items = origin.value if origin is not None and isinstance(origin.value, list) else []
        twins = [*items, *[None] * (len(value) - len(items))]
        return Node([_placed(each, place, twin) for each, twin in zip(value, twins, strict=False)], place)
    return Node(value, place if origin is None else replace(place, folder=origin.place.folder))
