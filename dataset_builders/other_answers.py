"""Another answer to a question, for reasoning that leads there: wrong, and of the same form as the gold one.

What is drawn is a function of the seed and the problem's id, never of the order of the problems. Whether the answer is
a likely mistake nobody knows; it is only never the gold one.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

from dataset_builders.chains import spelt_like
from toolkit.answers import canonical, kind_of, matches
from toolkit.problem import Problem
from toolkit.problem_rows import digest

NO_OPTION = "no other answer: no wrong option is known"
NO_NUMBER = "no other answer: the gold answer holds no number to change"
NO_WORD = "no other answer: the gold answer is no yes or no"
NO_OTHER = "no other answer: no other question of the task has another one"

# A near miss, in units of the last digit that is not a rounding zero: what a slip in a calculation gives.
_MISSES = (-10, -2, -1, 1, 2, 10)
_NUMERAL = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+")
_OPTION = re.compile(r"(?:^|\s)[(\[]?([A-Z])[)\]][ .:]")
# So many golds of a task are looked at for one problem, from its own place on: enough to find some that fit.
_LOOKED_AT = 256


class OtherAnswers:
    """Draws a wrong answer for each of some problems.

    Args:
        problems: All problems; the golds of a task are what its texts are drawn from.
        seed: Seed of the draws.
    """

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        self._problems, self._seed = problems, seed

    @cached_property
    def _rings(self) -> dict[str, list[tuple[str, str]]]:
        """The golds of each task in the order of their digests; made once one of them is wanted.

        Golds and problems are points on one ring. A problem more changes the draws of few others: of those that stand
        just before its gold.
        """
        golds: dict[str, set[str]] = {}
        for problem in self._problems:
            golds.setdefault(problem.task, set()).add(problem.answer)
        return {task: sorted((digest(self._seed, gold), gold) for gold in texts) for task, texts in golds.items()}

    def draw(self, problem: Problem) -> tuple[str | None, str | None]:
        """Return (a wrong answer, None), or (None, why there is none).

        * another option, where there are `choices` or the question lists letters; as the gold, a text or a letter
        * the other word, for a boolean, spelt as the gold is
        * a near miss, for a number: same sign, decimals, separators and unit, and as round
        * the gold of another problem of the task, for anything else; where the question itself names two or more
          such, one of those
        """
        kind = kind_of(problem.answer, problem.kind)
        if problem.answer in problem.choices:
            return self._first(self._ranked(problem.choices, problem), problem, NO_OPTION)
        if kind == "boolean":
            return self._first([_flipped(problem.answer)], problem, NO_WORD)
        if kind == "choice":
            return self._first(self._ranked(_options(problem), problem), problem, NO_OPTION)
        if kind == "number":
            return self._first(self._ranked(_near_misses(problem.answer), problem), problem, NO_NUMBER)
        golds = list(self._around(problem))
        named = [gold for gold in golds if _names(problem.question, gold) and not _is_gold(gold, problem)]
        return self._first(named if len(named) > 1 else golds, problem, NO_OTHER)

    def _ranked(self, answers: Iterable[str], problem: Problem) -> list[str]:
        return sorted(answers, key=lambda answer: digest(self._seed, problem.id, answer))

    def _around(self, problem: Problem) -> Iterator[str]:
        """Yield golds of the problem's task, from the problem's place on the ring on."""
        ring = self._rings.get(problem.task, [])
        start = bisect(ring, (digest(self._seed, problem.id), ""))
        return (ring[place % len(ring)][1] for place in range(start, start + min(len(ring), _LOOKED_AT)))

    def _first(self, answers: Iterable[str], problem: Problem, reason: str) -> tuple[str | None, str | None]:
        answer = next((answer for answer in answers if answer and not _is_gold(answer, problem)), None)
        return (None, reason) if answer is None else (answer, None)


@lru_cache(maxsize=32)
def wrong_answers(problem: Problem, labels: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return every wrong answer of a question with a closed set of answers, in the set's order; none of an open one.

    Args:
        problem: The question.
        labels: All answers that there are, where neither the options nor yes and no are.
    """
    if not labels:
        kind = kind_of(problem.answer, problem.kind)
        if problem.answer in problem.choices:
            labels = problem.choices
        elif kind == "choice":
            labels = tuple(_options(problem))
        elif kind == "boolean":
            labels = (_flipped(problem.answer),)
    return tuple(label for label in labels if label and not _is_gold(label, problem))


def _names(question: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", question) is not None


def _is_gold(answer: str, problem: Problem) -> bool:
    """Whether an answer says the gold one, or says nothing that could be told from it."""
    kind = kind_of(problem.answer, problem.kind)
    return canonical(answer, kind, problem.choices) is None or matches(answer, problem.answer, kind, problem.choices)


def _flipped(gold: str) -> str:
    opposite = {"yes": "no", "no": "yes", "valid": "invalid", "invalid": "valid"}
    return spelt_like(gold, opposite.get(str(canonical(gold, "boolean")), ""), "boolean")


def _options(problem: Problem) -> list[str]:
    """Return the letters of a choice, in brackets if the gold has them."""
    letters = [chr(ord("A") + index) for index in range(len(problem.choices))]
    if not letters:
        listed = list(dict.fromkeys(_OPTION.findall(problem.question)))
        # A list of options runs from A on; other letters in brackets are not one.
        letters = listed if listed == [chr(ord("A") + index) for index in range(len(listed))] else []
    return [f"({letter})" if "(" in problem.answer else letter for letter in letters]


def _near_misses(gold: str) -> list[str]:
    """Return numbers near the first one of `gold`, in its own form and in its place."""
    found = _NUMERAL.search(gold)
    if found is None:
        return []
    whole, point, decimals = found.group().replace(",", "").partition(".")
    digits = whole + decimals
    zeros = len(digits) - len(digits.rstrip("0"))
    # 130000 becomes 131000 rather than 130001, and 20 still becomes 19.
    unit = 10 ** max(0, zeros - 1) if int(digits) else 1
    misses = []
    for miss in _MISSES:
        value = int(digits) + miss * unit
        if value <= 0:  # another sign, or none
            continue
        text = str(value).zfill(len(digits))
        front, back = text[: len(text) - len(decimals)], text[len(text) - len(decimals) :]
        if front and not re.match("0[0-9]", whole):  # 18 becomes 8 rather than 08
            front = f"{int(front):,}" if "," in found.group() else str(int(front))
        misses.append(f"{gold[: found.start()]}{front}{point}{back}{gold[found.end() :]}")
    return misses
