"""Ready-made pairs of a right and a wrong chain, read from a file and cleaned like a teacher's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dataset_builders.chains import Chain, parse, ready_made, well_formed, without_one_sided_marks
from dataset_builders.settings import Pairs
from toolkit.errors import UserError
from toolkit.problem import Problem
from toolkit.problem_files import read_rows


def paired_chains(pairs: Pairs, max_characters: int) -> Iterator[tuple[Problem, Chain, Chain]]:
    """Yield (problem, right chain, wrong chain) per line of a JSON Lines file.

    Every answer clause ("So the answer is", "A:", ...) is taken off the rationale, so that both sides close in
    the same words; calculator marks go where only one side has them. The chains are not judged here.

    Raises:
        UserError: The file is missing or empty, a line is no JSON object, lacks a field, or repeats an id.
    """
    seen: dict[str, str] = {}
    for row in read_rows(pairs.path):
        if row.fault:
            raise UserError(f"{row.place}: {row.fault}")
        where, data = row.place, row.data
        texts = {name: _field(data, name, where) for name in ("id", "task", "question", "gold")}
        problem = Problem(
            id=texts["id"],
            task=texts["task"],
            question=texts["question"],
            answer=texts["gold"],
            kind=pairs.kinds.get(texts["task"], "auto"),
        )
        if problem.id in seen:
            raise UserError(f"{where}: id {problem.id!r} is already the id of {seen[problem.id]}")
        seen[problem.id] = where
        right, wrong = (_field(_side(data, side, where), "cot", f"{where}: {side}") for side in ("right", "wrong"))
        cleaned = without_one_sided_marks(right, wrong)
        chains = [
            _chain(raw, text, _side(data, side, where), problem, max_characters)
            for side, raw, text in zip(("right", "wrong"), (right, wrong), cleaned, strict=True)
        ]
        yield problem, chains[0], chains[1]
    if not seen:
        raise UserError(f"{pairs.path}: no pairs in this file")


def _side(data: dict[str, Any], side: str, where: str) -> dict[str, Any]:
    value = data.get(side)
    if not isinstance(value, dict):
        raise UserError(f"{where}: {side!r} must be an object with the chain in 'cot'")
    return value


def _field(data: dict[str, Any], name: str, where: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name!r} must be a text that is not empty, found {value!r:.60}")
    return well_formed(value)


def _chain(raw: str, text: str, side: dict[str, Any], problem: Problem, max_characters: int) -> Chain:
    rationale, answer, fault = parse(text, problem, "stop", max_characters)
    model = str(side.get("model") or side.get("source") or "unknown")
    return Chain(rationale, answer, fault, "paired", provenance=ready_made("paired", model, raw))
