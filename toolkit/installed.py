"""Which libraries a result comes from: `environment.txt`, exact versions as `pip install -r` takes them."""

from __future__ import annotations

import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version

OWN = "cot-distillery"
ENVIRONMENT = "environment.txt"


@cache
def lock() -> str:
    """Return the exact version of everything installed that the toolkit needs, and what that needs, a line each.

    Its own version and Python's stand in a comment. So does a local build (`2.13.0+cpu`), which no index has: its
    version without that part is what is pinned. What the toolkit needs for its own tests is left out.
    """
    pins = {name: _pin(name, pinned) for name, pinned in _needed().items()}
    return "\n".join([f"# {OWN} {version(OWN)}, Python {platform.python_version()}", *pins.values()]) + "\n"


def versions(environment: str) -> dict[str, str]:
    """Read such a text: versions by the names of distributions, and that of `Python`."""
    own = re.match(rf"# {OWN} (\S+), Python (\S+)\n", environment)
    found = {OWN: own[1], "Python": own[2]} if own else {}
    for line in environment.splitlines():
        pin, _, comment = line.partition("#")
        name, _, pinned = pin.strip().partition("==")
        if pinned:
            found[name] = comment.strip() or pinned
    return found


def differences(environment: str) -> list[str]:
    """Say of each distribution in such a text that is another one here, or is not here, which it was and is."""
    then, now = versions(environment), versions(lock())
    return [f"{name} was {was}, is {now.get(name, 'missing')}" for name, was in then.items() if now.get(name) != was]


def _pin(name: str, pinned: str) -> str:
    public = pinned.partition("+")[0]
    return f"{name}=={public}" + (f"  # {pinned}" if public != pinned else "")


def _needed() -> dict[str, str]:
    """Return the versions of the distributions that the toolkit depends on, transitively, by name in order."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    extras = distribution(OWN).metadata.get_all("Provides-Extra") or []
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    pending = [(OWN, extra) for extra in ["", *extras] if extra != "dev"]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name], requires = version(name), distribution(name).requires or []
        except PackageNotFoundError:  # of an extra that is not installed
            continue
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                other = canonicalize_name(requirement.name)
                pending += [(other, wanted) for wanted in ["", *requirement.extras]]
    del found[OWN]
    return dict(sorted(found.items()))
