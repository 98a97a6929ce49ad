"""Blocks of a page, and each of them as Markdown and as HTML: headings, tables, pictures, code, lists, paragraphs.

Knows nothing of what stands in them.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.terminal_text import escaped, visible


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Titles of the columns.
        rows: Cells.
        marked: Rows that stand out.
        texts: So many columns from the left are text, the others are figures.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    texts: int = 1

    def is_text(self, column: int) -> bool:
        """Return whether a column is text, which is aligned to the left."""
        return column < self.texts


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG file beside the page."""

    file: Path
    about: str


@dataclass(frozen=True)
class Code:
    """A text as it is typed."""

    text: str


Block = Table | Heading | Picture | Code | str | list[str]
"""A table, a title, a picture, a command, a paragraph, or a list of sentences."""


def as_markdown(block: Block) -> str:
    """Return a block as Markdown."""
    match block:
        case Heading():
            return f"## {_cell(block.text)}"
        case Table():
            cells = [[_cell(cell) for cell in row] for row in [block.header, *block.rows]]
            for place in block.marked:
                cells[place + 1] = [f"**{cell}**" if cell else "" for cell in cells[place + 1]]
            rule = ["---" if block.is_text(column) else "---:" for column in range(len(block.header))]
            return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], rule, *cells[1:]])
        case Picture():
            return f"![{block.about}]({block.file.name})"
        case Code():
            return f"```text\n{visible(block.text).replace('```', chr(39) * 3)}\n```"
        case list():
            return "\n".join(_wrapped(f"- {line}", "  ") for line in block)
        case str():
            return _wrapped(block)


def _wrapped(text: str, indent: str = "") -> str:
    """Return text of any source as lines of a paragraph or a list's item, in which nothing is taken for markup."""
    text = visible(" ".join(text.split())).replace("<", "&lt;")
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return visible(" ".join(text.split())).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


_STYLE = """<style>body{max-width:78rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6rem 0;background:#fff}
th,td{padding:.28rem .6rem;border-bottom:1px solid #e2e2e2;text-align:right;white-space:nowrap}
th{border-bottom:2px solid #999;font-weight:600}.text{text-align:left}
tr.marked td{font-weight:600;background:#eaf1f8}ul,p{max-width:60rem}li{margin:.25rem 0}
img{max-width:100%}pre{background:#fff;border:1px solid #ddd;padding:.7rem;white-space:pre-wrap;overflow-wrap:anywhere}
</style>"""


def as_html(title: str, shown: Sequence[Block]) -> str:
    """Return blocks as one self-contained page."""
    from toolkit.explain import page

    return page(title, _STYLE + "\n".join(_html_block(block) for block in shown))


def _html_block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h2>{escaped(block.text)}</h2>"
        case Table():
            head = _html_row("th", block, block.header)
            body = "".join(
                f"<tr{' class=marked' if place in block.marked else ''}>{_html_row('td', block, row)}</tr>"
                for place, row in enumerate(block.rows)
            )
            return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        case Picture():
            data = base64.b64encode(block.file.read_bytes()).decode()
            return f'<img alt="{escaped(block.about)}" src="data:image/png;base64,{data}">'
        case Code():
            return f"<pre>{escaped(block.text)}</pre>"
        case list():
            return "<ul>" + "".join(f"<li>{_sentence(line)}</li>" for line in block) + "</ul>"
        case str():
            return f"<p>{_sentence(block)}</p>"


def _html_row(tag: str, table: Table, cells: Sequence[str]) -> str:
    return "".join(
        f"<{tag}{' class=text' if table.is_text(column) else ''}>{escaped(cell)}</{tag}>"
        for column, cell in enumerate(cells)
    )


def _sentence(text: str) -> str:
    """Return text with what stands between backticks as code."""
    pieces = escaped(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
