"""Ready-made chains, read from a file and parsed like a teacher's own."""

from __future__ import annotations

from collections.abc import Iterator

from dataset_builders.chains import Chain, parse, ready_made, well_formed
from dataset_builders.settings import WrittenChains
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_files import Row, read_rows
from toolkit.problem_rows import Columns, problems_of_rows
from toolkit.views import columns, fill, lookup


def written_chains(written: WrittenChains, max_characters: int) -> Iterator[tuple[Problem, Chain]]:
    """Yield (problem, chain) per row of a file. A row whose chain is null is a teacher's empty completion.

    Final answers are not judged here.

    Raises:
        UserError: The file is missing or empty, or a row has no question, no gold answer or no column of the chain.
    """
    named = Columns(question=written.question, answer=written.answer, choices=written.choices)
    for row, problem in problems_of_rows(read_rows(written.path), named, None, written.kind, written.task):
        raw = well_formed(_text(row, written.chain))
        rationale, answer, fault = parse(raw, problem, "stop", max_characters)
        yield problem, Chain(rationale, answer, fault, "written", provenance=ready_made("written", written.model, raw))


def _text(row: Row, template: str) -> str:
    for path in columns(template):
        try:
            value = lookup(row.data, path)
        except UserError as error:
            raise UserError(f"{row.place}: {error}") from None
        if value is None:
            return ""
        if not isinstance(value, str | int | float):
            raise UserError(f"{row.place}: column {path!r} is a {type(value).__name__}, not a text")
    return fill(template, row.data)
