"""Takes secrets out of what a server says before any of it is stored, shown or cut.

It looks at text that is decoded: in the bytes of a response a key may stand as `\\u0073k-...`. A server that passes on
another one's words packs them into text once more, so a key is also found behind JSON's, Python's and HTML's escapes
and percent signs within a text, and as base64 of itself. One that is split over several texts, or masked, is not.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote

SHORTEST = 8
"""Characters: local servers take keys like `EMPTY`, a word that completions may hold."""

_MARK = "[key]"
_LAYERS = 3  # of packing: a gateway that quotes a gateway that quotes a server
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\([\"'\\/])")


class Redactor:
    """Replaces secrets by `[key]`.

    Args:
        secrets: As they are sent; empty ones are passed over.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._short = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._secrets = [secret for secret in self._short if len(secret) >= SHORTEST]
        forms = {form for secret in self._secrets for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        packing = {b"\\u", b"\\/", b"\\\\", b"%", b"&", b"\0"}  # NUL: of an encoding other than UTF-8
        packing |= {b'\\"'} if any('"' in secret for secret in self._secrets) else set()
        self._hints = [*packing, *(form.encode() for form in self._forms)] if self._secrets else []

    def may_find(self, raw: bytes) -> bool:
        """Whether a body may hold a secret, so that it has to be gone through; most need not, which takes a while."""
        return any(hint in raw for hint in self._hints)

    def clean(self, said: Any) -> Any:
        """Return parsed JSON without secrets in its texts and keys.

        Raises:
            RecursionError: It is nested hundreds of levels deep, which nothing that a model writes is.
        """
        if isinstance(said, str):
            return self.text(said)
        if isinstance(said, dict):
            return {self.text(name): self.clean(value) for name, value in said.items()}
        if isinstance(said, list):
            return [self.clean(value) for value in said]
        return said

    def text(self, text: str) -> str:
        """Return a text without secrets; a packed one comes back unpacked where it held one."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MARK)
        if not self._secrets or not ("\\" in text or "%" in text or "&" in text):
            return text
        layer = {text}
        for _ in range(_LAYERS):
            layer = {unpacked for each in layer for unpack in _UNPACK if (unpacked := unpack(each)) != each}
            for unpacked in layer:
                if any(secret in unpacked for secret in self._secrets):
                    return self.text(unpacked)
        return text

    def reason(self, reason: str) -> str:
        """Return what is told of an error without secrets, short ones included."""
        reason = self.text(reason)
        for secret in self._short:
            reason = reason.replace(secret, _MARK)
        return reason


def _forms(secret: str) -> set[str]:
    packed = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    packed |= {quote(secret, safe=""), html.escape(secret)}
    encoded = {base64.b64encode(text.encode()).decode().rstrip("=") for text in (secret, f"Bearer {secret}")}
    return packed | encoded


def _unescaped(match: re.Match[str]) -> str:
    wide, narrow, itself = match.groups()
    return itself or chr(int(wide or narrow, 16))


def _unescape(text: str) -> str:
    return _ESCAPED.sub(_unescaped, text)


# Each by itself: a key may hold what looks like another one's work.
_UNPACK: tuple[Callable[[str], str], ...] = (_unescape, unquote, html.unescape)
