"""Ready-made edits of questions, read from files original by original and judged like a teacher's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from dataset_builders.asking import Step
from dataset_builders.chains import ready_made
from dataset_builders.counterfactual_settings import CounterfactualPairsSettings, EditedPairs
from dataset_builders.edits import Edit, Example, Filter, Written, taken_apart
from toolkit.answers import matches
from toolkit.errors import UserError
from toolkit.on_disk import DiskCounter
from toolkit.problem import Problem
from toolkit.problem_files import Row, read_rows
from toolkit.problem_rows import Columns, problems_of_rows
from toolkit.views import lookup


def ready_made_pairs(
    settings: CounterfactualPairsSettings, steps: list[Step]
) -> Iterator[tuple[Example, list[Example]]]:
    """Judge ready-made edits by the rules that a teacher's are judged by; their labels are believed."""
    step = Step("edited")
    steps.append(step)
    model = settings.edited.model if settings.edited else ""
    judge = Filter((original.question for original, _ in edited_pairs(settings)), settings)
    for original, edits in edited_pairs(settings):
        written = taken_apart(original.question, settings.layout)
        made: list[Example] = []
        for edited in edits:
            edit, fault = _compared(original, written, edited, settings, model)
            if fault is None and matches(edited.answer, original.answer, original.kind, original.choices):
                fault = "the answer is what it was"
            if fault is None and written is not None:
                labels = settings.labels or (original.answer, edited.answer)
                fault = judge.fault(written, edit, edited.answer, labels)
            if fault is None and sum(one.reason is None for one in made) == settings.most:
                fault = "the original has enough"
            step.count(fault)
            made.append(Example(edited, original.id, edit, reason=fault and f"edited: {fault}"))
        yield Example(original, original.id), made


def _compared(
    original: Problem, written: Written | None, edited: Problem, settings: CounterfactualPairsSettings, model: str
) -> tuple[Edit, str | None]:
    """Find the field in which two questions differ; where it is none or several, the first one is told."""
    now = taken_apart(edited.question, settings.layout)
    name = next(iter(settings.fields))
    fault = None
    if written is None or now is None:
        before, after, fault = original.question, edited.question, "the question is not written in the layout"
    else:
        changed = [field for field, text in written.fields.items() if now.fields[field] != text]
        if any(field not in settings.fields for field in changed) or len(changed) > 1:
            fault = f"edits {' and '.join(changed)}"
        name = changed[0] if changed else name
        before, after = written.fields[name], now.fields[name]
    return Edit(original.answer, name, before, after, ready_made("edited", model, after)), fault


def edited_pairs(settings: CounterfactualPairsSettings) -> Iterator[tuple[Problem, Sequence[Problem]]]:
    """Yield every original with its edits; the latter have ids of their own.

    Raises:
        UserError: A missing or faulty file, a pair of one row or in two places, or files of unlike lengths.
    """
    edited = settings.edited
    assert edited is not None
    named = Columns(question=settings.layout, answer=edited.answer)
    groups = _pairs(edited, named) if edited.pair is not None else _revisions(edited, named)
    for original, edits in groups:
        yield original, [replace(edit, id=f"{original.id}#{number}") for number, edit in enumerate(edits, 1)]


def _pairs(edited: EditedPairs, named: Columns) -> Iterator[tuple[Problem, list[Problem]]]:
    """Take the rows of each pair, which stand below one another, the original first."""
    seen = DiskCounter()
    assert edited.pair is not None

    def pair(read: tuple[Row, Problem]) -> str:
        return str(lookup(read[0].data, edited.pair or ""))

    for name, group in groupby(_read(edited.path, edited, named), key=pair):
        (row, original), *edits = group
        if not edits:
            raise UserError(f"{row.place}: the pair {name!r} has one row alone, or its rows do not follow one another")
        if seen.count(name) > 1:
            raise UserError(f"{row.place}: rows of the pair {name!r} stand in two places; they must follow one another")
        yield original, [edit for _, edit in edits]


def _revisions(edited: EditedPairs, named: Columns) -> Iterator[tuple[Problem, list[Problem]]]:
    """Take with each original its rows of every file of edits."""
    files = {path: (edit for _, edit in _read(path, edited, named)) for path in edited.revised}
    for row, original in _read(edited.path, edited, named):
        edits: list[Problem] = []
        for path, rows in files.items():
            of_this = list(islice(rows, edited.per_original))
            if len(of_this) < edited.per_original:
                raise UserError(f"{path}: has no {edited.per_original} rows for {row.place}, see edited.per_original")
            edits += of_this
        yield original, edits
    for path, rows in files.items():
        if next(rows, None) is not None:
            raise UserError(f"{path}: has more than {edited.per_original} rows for each of {edited.path}")


def _read(path: str, edited: EditedPairs, named: Columns) -> Iterator[tuple[Row, Problem]]:
    return problems_of_rows(read_rows(path), named, None, edited.kind, edited.task)
