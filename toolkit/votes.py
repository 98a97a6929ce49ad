"""The vote over answers: of samples drawn in one way, or got in several, by reasoning in words and by programs.

Ground floor: answers in, an answer out. Who wrote them, and when more of them are wanted, is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from toolkit.answers import canonical, matches

# A program's 33.333 and a chain's 33.33 are one answer to a vote. Right or wrong is decided without any tolerance.
TOLERANCE = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Ballot:
    """One answer that may vote.

    Attributes:
        way: How it was got, e.g. the view's name.
        answer: The answer as `toolkit.answers.extract` gives it; None, which never votes, where there is none.
    """

    way: str
    answer: str | None


@dataclass
class _Candidate:
    """An answer with those who voted for it."""

    answer: str
    ways: Counter[str] = field(default_factory=Counter)


def alike(answer: str | None, reference: str | None, kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers count as one in a vote. None is like nothing.

    Numbers: |u - v| <= 1e-3 max(1, |v|), v being the reference; so this is neither symmetric nor transitive. Anything
    else: as `toolkit.answers.matches` has it.

    Args:
        answer: An answer u.
        reference: The answer v that it is held against.
        kind: How answers are compared; not auto.
        choices: The texts of the options in order.
    """
    if answer is None or reference is None:
        return False
    if kind == "number":
        u, v = canonical(answer, kind), canonical(reference, kind)
        if isinstance(u, Fraction) and isinstance(v, Fraction):
            return abs(u - v) <= TOLERANCE * max(Fraction(1), abs(v))
    return matches(answer, reference, kind, choices)


def vote(ballots: Sequence[Ballot], kind: str, choices: Sequence[str] = (), prefer: str | None = None) -> str | None:
    """Return the answer with the most votes, whatever the order of the ballots; None where nobody has an answer.

    A tie goes to the answer that more ways support, then to the one that the preferred way supports more often, then to
    the one that comes first by the rule below.

    Args:
        ballots: The answers.
        kind: How answers are compared; not auto.
        choices: The texts of the options in order.
        prefer: The way that breaks ties, found on questions that are no test questions.
    """
    found = _candidates(ballots, kind, choices)
    if not found:
        return None
    return max(found, key=lambda each: (each.ways.total(), len(each.ways), each.ways[prefer or ""])).answer


def agree(ballots: Sequence[Ballot], kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether everybody has an answer, and all have the same."""
    found = _candidates(ballots, kind, choices)
    return len(found) == 1 and found[0].ways.total() == len(ballots)


def _candidates(ballots: Sequence[Ballot], kind: str, choices: Sequence[str]) -> list[_Candidate]:
    """Group answers by the first candidate that they are like: the most frequent ones first, then the smallest.

    Likeness is not transitive, so who comes first makes the groups; the order must not be that of the ballots.
    """
    spelt: dict[Fraction | str, list[Ballot]] = {}
    for ballot in ballots:
        # An answer that says nothing of its kind is none.
        if ballot.answer is not None and (value := canonical(ballot.answer, kind, choices)) is not None:
            spelt.setdefault(value, []).append(ballot)
    found: list[_Candidate] = []
    for value in sorted(spelt, key=lambda value: (-len(spelt[value]), value)):  # of one kind all values are of one type
        texts = [str(ballot.answer) for ballot in spelt[value]]
        candidate = next((each for each in found if alike(texts[0], each.answer, kind, choices)), None)
        if candidate is None:
            found.append(candidate := _Candidate(min(texts, key=lambda text: (len(text), text))))
        candidate.ways.update(ballot.way for ballot in spelt[value])
    return found


def majority_vote(answers: Sequence[str | None], kind: str, choices: Sequence[str] = ()) -> str | None:
    """The extracted answer that most samples give; None where no sample gives one.

    Samples without an answer have no vote; a tie goes to the answer that was seen first. "10" and "10.0" are one
    number, "(b)" and "B" one choice (`toolkit.answers.canonical`).

    Args:
        answers: What `toolkit.answers.extract` found in each sample.
        kind: How answers are compared; not auto.
        choices: The texts of the options in order.
    """
    ballots: dict[Any, list[str]] = {}
    for answer in answers:
        if answer is not None:
            ballots.setdefault(canonical(answer, kind, choices), []).append(answer)
    return max(ballots.values(), key=len)[0] if ballots else None
