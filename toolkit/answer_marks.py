"""The characters of an answer: which look alike, and which only dress it."""

from __future__ import annotations

import re

# One character for one, so that offsets in the plain text are offsets in the original. NFKC would read 10² as 102.
PLAIN: dict[int, int] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms
for _alike, _plain in (
    ("−‐‑‒–﹣", "-"),
    ("“”„«»", '"'),
    ("‘’", "'"),
    ("【〔〖", "["),
    ("】〕〗", "]"),
    ("⁄∕", "/"),
    ("。", "."),
    ("\r\u2028\u2029", "\n"),
    ("\t\u00a0\u2007\u2009\u202f\u3000", " "),
):
    PLAIN.update(dict.fromkeys(map(ord, _alike), ord(_plain)))


# Between groups of three digits a no-break or narrow blank belongs to the number; an ordinary one may part two numbers.
GROUPING_SPACE = "\u2008"
_GROUPED = re.compile(r"(?<=[0-9])[\u00a0\u2007\u2009\u202f](?=[0-9]{3}(?![0-9]))")


def plain(text: str) -> str:
    """Return the text in plain characters, each in the place of the one it stands for."""
    return _GROUPED.sub(GROUPING_SPACE, text).translate(PLAIN)


_WRAPPERS = [("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("$$", "$$"), ("$", "$")]
_WRAPPERS += [
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("\\text{", "}"),
    ("\\mathrm{", "}"),
    ("\\textbf{", "}"),
    ("\\mathbf{", "}"),
]
_WRAPPERS += [("\\boldsymbol{", "}"), ("\\underline{", "}"), ("\\textit{", "}")]


def tidy(answer: str) -> str:
    """Strip white space, markdown, quotation and mathematics marks around an answer, and one full stop.

    The last of several stops stays: an endless decimal is no finite one.
    """
    answer = re.sub(r"\*\*([^*\n]{1,300})\*\*", r"\1", answer.strip())
    full_stop = True
    for _ in range(6):  # marks nest, as in **"Paris."**; bounded, so that 1 MB of them costs no more
        before = answer
        if full_stop and len(answer) > 1 and answer.endswith(".") and answer[-2] != ".":
            answer, full_stop = answer[:-1].rstrip(), False
        answer = answer.removeprefix("**").removesuffix("**").strip()
        for left, right in _WRAPPERS:
            if answer.startswith(left) and answer.endswith(right):
                inner = answer[len(left) : len(answer) - len(right)]
                if inner.strip() and right not in inner:
                    answer = inner.strip()
        if answer == before:
            break
    return answer
