"""How a source that has no splits of its own is cut into train and test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from toolkit.problem import Problem
from toolkit.problem_rows import digest
from toolkit.schema import Strict

Split = Literal["train", "test"]


class Cut(Strict):
    """How a source without splits of its own is cut into train and test.

    Attributes:
        fraction: Share of rows that goes to train: floor(fraction * n), exactly, as long as questions are unique.
        seed: Seed of the shuffle of unique questions; the order of rows plays no part.
        by: Cut each task by itself, or all rows together.
    """

    fraction: float = Field(default=0.8, gt=0.0, lt=1.0)
    seed: int = 0
    by: Literal["task", "all"] = "task"


class Permuted(Strict):
    """The cut that many papers' code makes: `numpy.random.RandomState(seed).permutation(n)`, train from its front.

    Rows are told by their place in the source, so a question that occurs twice may be on both sides. With seed 0 and
    train 800 this is SVAMP's split of distilling step-by-step, whose test questions are the other 200.

    Attributes:
        seed: Seed of the permutation.
        train: Rows that go to train; the others are the test split, in the order of the permutation.
    """

    seed: int = Field(ge=0, lt=2**32)
    train: int = Field(ge=1)


def _rule_of(value: Any) -> str:
    if isinstance(value, dict):
        return "permuted" if "train" in value else "cut"
    return "permuted" if isinstance(value, Permuted) else "cut" if isinstance(value, Cut) else "named"


SplitRule = Annotated[
    Annotated[Cut, Tag("cut")] | Annotated[Permuted, Tag("permuted")] | Annotated[Split, Tag("named")],
    Discriminator(_rule_of),
]


def cut(problems: Sequence[Problem], rule: Cut, split: Split) -> Iterator[Problem]:
    """Yield one side of a cut, in the order of `problems`.

    Per task (or over all) the unique questions are shuffled; train takes them from the front until it holds
    floor(fraction * n) rows, and a question that occurs several times goes to one side with all its rows.
    """

    def place(problem: Problem) -> int:
        """Return the question's place in the shuffle, which stands for it."""
        return int(digest(rule.seed, normalised(problem.question))[:16], 16)

    groups: dict[str, Counter[int]] = defaultdict(Counter)
    for problem in problems:
        groups[problem.task if rule.by == "task" else ""][place(problem)] += 1
    in_train: dict[int, bool] = {}
    for rows in groups.values():
        # A question that an earlier task decided on keeps its side and takes its room here.
        room = int(Fraction(str(rule.fraction)) * rows.total())
        room -= sum(count for question, count in rows.items() if in_train.get(question))
        for question in sorted(rows.keys() - in_train.keys()):
            in_train[question] = rows[question] <= room
            room -= rows[question] if in_train[question] else 0
    return (problem for problem in problems if in_train[place(problem)] == (split == "train"))


def permuted(rows: int, rule: Permuted, split: Split) -> list[int]:
    """Return the places of the rows of one side of a cut by permutation."""
    import numpy as np

    order = np.random.RandomState(rule.seed).permutation(rows).tolist()
    return order[: rule.train] if split == "train" else order[rule.train :]


def normalised(question: str) -> str:
    """Return a question without what doesn't tell two questions apart: case and the amount of white space."""
    return " ".join(question.lower().split())
