"""Names in a recipe that become parts of paths, or of addresses on the Hub: what they may be."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,59}", text):
        raise ValueError("allowed a name of letters, digits, _ and -, a letter first, at most 60 characters")
    return text


_NUMBER = r"(0|[1-9]\d{0,8})"
_VERSION = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)


def _tag(text: str) -> str:
    if not _VERSION.fullmatch(text) and not re.fullmatch(r"[0-9a-f]{40}", text):
        raise ValueError("allowed a version tag like 'v1.2.3', or the 40 hexadecimal digits of a commit")
    return text


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError("allowed a version tag like 'v1.2.3'")
    return text


def _repo_id(text: str) -> str:
    word = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
    if (
        not re.fullmatch(rf"(?:{word}/)?{word}", text, re.ASCII)
        or re.search(r"--|\.\.", text)
        or len(text) > 96
        or text.lower().endswith(".git")
    ):
        raise ValueError(
            "allowed 'name' or 'organisation/name' of letters, digits, single - _ . and at most 96 characters, "
            "that does not end with .git"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name that becomes a part of paths and of dotted keys; a number would be taken for a position."""
RepoId = Annotated[str, AfterValidator(_repo_id)]
"""`organisation/name` on the Hub, or a name alone."""
Revision = Annotated[str, AfterValidator(_tag)]
"""A version, or a commit."""
Version = Annotated[str, AfterValidator(_version)]
