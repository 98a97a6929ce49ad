"""From recipe files to one tree whose every value knows where it stands: files, `extends`, overrides.

How a text becomes a tree is in `recipe_yaml`, how layers combine in `recipe_tree`, what the keys mean in `recipe`.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path as FilePath

from toolkit.errors import nearest
from toolkit.recipe_faults import Fault, Place, dotted, show
from toolkit.recipe_interpolation import interpolated
from toolkit.recipe_tree import Node, inheritable, leaves, merge, with_current_names
from toolkit.recipe_yaml import compose, text_fault
from toolkit.secret_scan import Secrets

_MOST_BYTES = 1 << 18  # twenty times the longest recipe here; PyYAML needs a second for a megabyte
_MOST_FILES = 50  # of one chain of `extends`
_MOST_NAMES = 2_000  # of a folder that are looked through for the nearest
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_SECRET = re.compile(
    r"(?i)[@?\\]|%40|\b(bearer|basic) "
    r"|(key|token|secret|passw|pwd|credential|auth|sig|code)[\w-]*['\"]?\s*[:=]\s*['\"]?\w"
)


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
    if tree is not None:
        tree = interpolated(tree, faults)
        faults += _unfit_values(tree)
    return tree, faults


def _unfit_values(tree: Node) -> Iterator[Fault]:
    """Give a fault for every value that no setting can mean, wherever it stands; also where any value is taken."""
    for path, node in leaves(tree):
        if isinstance(node.value, str) and (text := text_fault(node.value)):  # out of the environment
            yield Fault(node.place, dotted(path), text)
        elif isinstance(node.value, float) and not math.isfinite(node.value):
            yield Fault(node.place, dotted(path), f"found {node.value}, allowed a finite number")
        elif isinstance(node.value, int) and not -(2**63) <= node.value < 2**63:
            digits = len(str(abs(node.value)))
            yield Fault(node.place, dotted(path), f"found a whole number of {digits} digits, allowed those of 64 bits")


def _override(text: str, faults: list[Fault]) -> Node | None:
    """Return an override as a layer: nested mappings down to its value."""
    key, equals, value = text.partition("=")
    shown = f"{key}=..." if key.startswith("dataset") and _may_hold_secret(value) else text
    place = Place(f"override {shown if len(shown) <= 200 else shown[:197] + '...'!r}")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+|\[\d+\])*", key):
        faults.append(Fault(place, "", "allowed is KEY=VALUE with a dotted key, e.g. stages.0.training.seed=1"))
        return None
    parts = re.findall(r"[\w-]+", key)
    layer = compose(value, place, faults, tuple(parts), one_line=True)
    for part in reversed(parts):
        layer = layer and Node({part: layer}, place)
    return layer


def _may_hold_secret(value: str) -> bool:
    """Whether an override may hold what no message repeats: a password in an address, or a key where none may stand."""
    return (
        bool(_SECRET.search(value))
        or next(Secrets(os.environ).find(value.encode("utf-8", "replace")), None) is not None
    )


def _extended(path: str, place: Place, key: str, above: tuple[str, ...], faults: list[Fault]) -> Node | None:
    """Return a file laid over those it extends; `place` and `key` are where the file is named."""
    text = _text(path, place, key, faults)
    if text is None:
        return None
    identity = os.path.realpath(path)
    if identity in above:
        circle = " -> ".join(os.path.basename(name) for name in (*above, identity))
        faults.append(Fault(place, key, f"found a circle, {circle}; a recipe cannot extend itself"))
        return None
    if len(above) == _MOST_FILES:
        faults.append(Fault(place, key, f"found more than {_MOST_FILES} recipes that extend each other"))
        return None
    tree = compose(text, Place(path, folder=os.path.dirname(path)), faults)
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
        if any(fault.place == extends.place and fault.key == "extends" for fault in faults):
            return None  # a text that is none, which was told
        faults.append(Fault(extends.place, "extends", f"found {show(extends.plain())}, allowed the path of a recipe"))
        return None
    target = os.path.normpath(os.path.join(os.path.dirname(path), extends.value))
    base = _extended(target, extends.place, "extends", (*above, identity), faults)
    return None if base is None else replace(merge(inheritable(base), tree, (), faults), place=tree.place)


def _text(path: str, place: Place, key: str, faults: list[Fault]) -> str | None:
    """Return the text of a file, or None and a fault that says why there is none."""

    def wrong(text: str, at: Place = place, about: str = key) -> None:
        faults.append(Fault(at, about, f"{_shown(path)} {text}" if about else text))

    try:
        content = _bytes(path)
    except (OSError, ValueError) as error:  # ValueError: a path that holds NUL or half of a surrogate pair
        wrong(_why_unreadable(path, error))
        return None
    if isinstance(content, str):
        wrong(content)
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        wrong(f"found the byte 0x{content[error.start]:02x}, allowed UTF-8 text", Place(path, line), "")
        return None


def _bytes(path: str) -> bytes | str:
    """Return a file's content; of what is no recipe by its kind or size alone, what it is.

    Raises:
        OSError: It is not there or cannot be read.
        ValueError: No file can have this path.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        recipes = ", ".join(sorted(str(each) for each in FilePath(path).glob("*.yaml"))[:20]) or "no recipes"
        return f"found a folder, allowed the file of a recipe; it holds {recipes}"
    if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for, a device never ends
        return f"found {_KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, allowed the file of a recipe"
    if status.st_size > _MOST_BYTES:
        return f"found {status.st_size:,} bytes, allowed at most {_MOST_BYTES:,}: this is no recipe"
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # /proc has files that wait
        return file.read(_MOST_BYTES) or b""


def _why_unreadable(path: str, error: OSError | ValueError) -> str:
    """Say what keeps a file from being read, and of one that is not there what is near."""
    if isinstance(error, ValueError):
        return "is no path that a file can have"
    if not isinstance(error, FileNotFoundError):
        return f"the file cannot be read: {error.strerror or error}"
    file = FilePath(path)
    if not file.parent.is_dir():
        return f"there is no such file, nor a folder {str(file.parent)!r}"
    try:
        with os.scandir(file.parent) as entries:
            names = [entry.name for entry in islice(entries, _MOST_NAMES)]
    except OSError:
        names = []
    return f"there is no such file{nearest(file.name, names)}"


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else f"{path[:100]}...{path[-90:]}")
