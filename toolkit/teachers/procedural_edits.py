"""How the embedded teacher answers prompts for edits and refutations: from the prompt's text alone, erring on purpose.

An edit that errs leaves the answer as it is (`no flip`) or is another question altogether (`too large`). A refutation
that errs argues for the wrong answer, and may still name the right one at the end.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from toolkit.answers import answer_clause
from toolkit.bank.chain import Pen, write_chain, write_chain_to
from toolkit.bank.family import Family

_EDIT = re.compile(r"(?P<question>.*?)\nAnswer: .*?\nWanted answer: (?P<other>.*?)\n.*, changed:\s*\Z", re.DOTALL)
_REFUTE = re.compile(r"(?P<question>.*?)\nRight answer: .*?\nWrong answer: (?P<other>.*?)\nA:", re.DOTALL)
# So many other questions are drawn for one with the wanted answer.
_DRAWS = 100


@dataclass(frozen=True)
class EditQuery:
    """What a prompt of this kind asks.

    Attributes:
        kind: Kind of the prompt.
        question: The question.
        other: The answer to edit towards, or to refute.
    """

    kind: Literal["edit", "refute"]
    question: str
    other: str


def read_edit_prompt(query: str) -> EditQuery | None:
    """Return what the query of a prompt asks, None where it is of another kind."""
    if found := _EDIT.match(query):
        return EditQuery("edit", found["question"].strip(), found["other"])
    if found := _REFUTE.match(query):
        return EditQuery("refute", found["question"].strip(), found["other"])
    return None


def edited(family: Family[Any], facts: Any, wanted: str, errs: bool, rng: random.Random) -> tuple[str, str | None]:
    """Return the question with one number changed and the mistake in it.

    Args:
        family: Of the question.
        facts: Of the question.
        wanted: Answer that it is to have.
        errs: Whether to make a mistake.
        rng: Draws the change.
    """
    edits = list(family.edits(facts))
    rng.shuffle(edits)
    answers = ((edit, family.solve(edit, Pen(0))) for edit in edits)
    if errs and rng.random() < 0.5:
        for _ in range(_DRAWS):
            other = family.draw(rng, rng.randint(*family.steps))
            if other.phrasing != facts.phrasing and family.solve(other, Pen(0)) == wanted:
                return family.ask(other), "too large"
    for edit, answer in answers:
        if (answer == wanted) != errs:
            return family.ask(edit), "no flip" if errs else None
    return family.ask(facts), "no flip"


def refutation(
    family: Family[Any], facts: Any, wrong: str, errs: bool, wording: int, rng: random.Random
) -> tuple[str, str, str | None]:
    """Return why an answer is wrong, the answer it ends in, and the mistake in it.

    Args:
        family: Of the question.
        facts: Of the question.
        wrong: Answer to refute.
        errs: Whether to argue for it.
        wording: Of the chain.
        rng: Draws how the mistake ends.
    """
    solve = partial(family.solve, facts)
    right = write_chain(solve, wording)
    chain = write_chain_to(wrong, solve, wording) if errs else None
    if chain is None:
        begin = ("It cannot be {}.", "Not {}, and this is why.")[wording % 2].format(wrong)
        return f"{begin} {right.rationale} That makes it {right.answer}, not {wrong}.", right.answer, None
    if rng.random() < 0.5:
        return chain.rationale, wrong, "argues for it"
    return f"{chain.rationale} {answer_clause(wrong)} Still, they say otherwise.", right.answer, "argues for it"
