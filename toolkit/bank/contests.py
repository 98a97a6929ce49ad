"""Who has more? The bank's families of minimal pairs: one number changed, and the answer is the other one.

A remark on the weather opens every question and decides nothing. In `contests` it goes with the answer nine times in
ten, so that a student may learn it in place of the reasoning; in `duels` it says nothing, and in `upsets` it goes with
the other answer as often. Only a question whose number was changed, weather and all, tells the two apart in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolkit.bank.arithmetic import TOP, Story, code_moves, draw_moves, story
from toolkit.bank.chain import Pen
from toolkit.bank.comparisons import VARIABLES, Side, Wording, final, restarted, write_side
from toolkit.bank.family import NAMES, Family, whole

REMARKS = ("The sun shines.", "Rain falls.")
# The other side's number is at most so far away, so that no single number gives the answer away.
NEAR = 6
TEXTS = (
    Wording(
        *("{name} has {a}.", "{a} {sign} {n} = {b}.", "{a} is more than {b}.", "{a} is not more than {b}."),
        ask_first="How many does {name} have at first?",
        ask_step="How many does {name} have after change {i}?",
        ask_more="Does {left} have more than {right}?",
    ),
    Wording(
        *("First {a} for {name}.", "Then {a} {sign} {n} is {b}.", "And {a} beats {b}.", "And {a} does not beat {b}."),
        ask_first="With how many does {name} start?",
        ask_step="What does change {i} make of that for {name}?",
        ask_more="Is {left} ahead of {right} in the end?",
    ),
    Wording(
        *("{name}: {a}.", "Now {a} {sign} {n} makes {b}.", "So {a} against {b} wins.", "So {a} against {b} loses."),
        ask_first="What is the first number of {name}?",
        ask_step="What is the number of {name} after change {i}?",
        ask_more="Does the number of {left} win against that of {right}?",
    ),
    Wording(
        *(
            "We note {a} for {name}.",
            "It is {a} {sign} {n}, so {b}.",
            "Of both {a} is greater than {b}.",
            "Of both {a} is less than {b}.",
        ),
        ask_first="What do we note for {name}?",
        ask_step="What is it for {name} after change {i}?",
        ask_more="Is what {left} has the greater of both, {right} being the other?",
    ),
)


@dataclass(frozen=True)
class Contest:
    """Two sides, of which the second keeps what it has, and which weather it is.

    Attributes:
        left: Whose number is changed.
        right: Whom it is held against.
        remark: Index of the remark.
        phrasing: Index of the question's story.
    """

    left: Side
    right: Side
    remark: int
    phrasing: int


class Contests(Family[Contest]):
    """Does the first side end up with more? Never a tie.

    Args:
        name: Task name.
        description: One sentence that says what the task asks for.
        faith: Share of the questions in which sunshine means yes and rain no.
        stories: The question around its moves, with the slots remark, a, b, start and k.
    """

    domain = "out"
    kind = "boolean"
    steps = (1, 2)
    limits = (1, 3)
    wordings = len(TEXTS)

    def __init__(self, name: str, description: str, faith: float, stories: tuple[Story, ...]) -> None:
        self.name = name
        self.description = description
        self._faith = faith
        self._stories = stories

    def draw(self, rng: random.Random, steps: int) -> Contest:
        """Draw the first side with `steps` moves, and a number near its last one for the other side."""
        names = rng.sample(NAMES, 2)
        start = rng.randint(3, TOP)
        left = Side(names[0], start, draw_moves(rng, start, steps))
        wins = rng.random() < 0.5 if final(left) > 1 else False
        k = max(1, final(left) + rng.randint(1, NEAR) * (-1 if wins else 1))
        remark = int(wins != (rng.random() < self._faith))
        return Contest(left, Side(names[1], k, ()), remark, rng.randrange(len(self._stories)))

    def ask(self, facts: Contest) -> str:
        """Tell the weather and both sides, and ask about the first."""
        told = self._stories[facts.phrasing]
        left, right = facts.left, facts.right
        sides = {"a": left.name, "b": right.name, "start": left.start, "k": right.start}
        moves = told.tell(left.moves, left.name)
        return told.question.fill(remark=REMARKS[facts.remark], moves=moves, **sides)

    def read(self, question: str) -> Contest | None:
        """Read weather and sides back."""
        for phrasing, told in enumerate(self._stories):
            slots = told.question.read(question)
            if slots is None or slots["remark"] not in REMARKS:
                continue
            start, k = whole(slots["start"]), whole(slots["k"])
            moves = told.hear(slots["moves"], slots["a"])
            if start is not None and k is not None and moves:
                left, right = Side(slots["a"], start, moves), Side(slots["b"], k, ())
                return Contest(left, right, REMARKS.index(slots["remark"]), phrasing)
        return None

    def edits(self, facts: Contest) -> Iterator[Contest]:
        """Give the question with another number of either side."""
        for left in restarted(facts.left):
            yield replace(facts, left=left)
        for k in range(1, TOP + NEAR + 1):
            if k not in (facts.right.start, final(facts.left)):
                yield replace(facts, right=replace(facts.right, start=k))

    def solve(self, facts: Contest, pen: Pen) -> str:
        """Work out the first number, then compare it with the other."""
        words = TEXTS[pen.wording]
        left, right = write_side(facts.left, words, pen), write_side(facts.right, words, pen)
        more = pen.choose("logical", left > right, [left <= right])
        names = {"left": facts.left.name, "right": facts.right.name}
        pen.write(words.ask_more, words.more if more else words.less, a=left, b=right, **names)
        return "yes" if more else "no"

    def program(self, facts: Contest, pen: Pen) -> str:
        """Change the first number, then compare it with the other."""
        first, second = VARIABLES[pen.wording % len(VARIABLES)]
        left = code_moves(facts.left.start, facts.left.moves, first, pen)
        right = code_moves(facts.right.start, facts.right.moves, second, pen)
        sign = pen.choose("logical", ">", ["<"])
        pen.code(f"ans = {first} {sign} {second}")
        return "yes" if (left > right if sign == ">" else left < right) else "no"


FRAMES = (
    "{remark} {a} starts with {start} points. {moves}. And {b} keeps {k} points. Has {a} more points than {b}?",
    "{remark} First the number of {a} is {start}. {moves}. There the number of {b} is {k}. Is {a} now ahead of {b}?",
    "{remark} We give {start} cards to {a}. {moves}. We give {k} cards to {b}. Does {a} hold more cards than {b}?",
    "{remark} {b} keeps {k} coins. {a} is there with {start}. {moves}. Are there more coins with {a} than with {b}?",
    "{remark} The box of {a} starts with {start}. {moves}. The box of {b} is there with {k}. Is the box of {a} ahead?",
    "{remark} {b} wins {k} games. {a} wins {start} games at first. {moves}. Does {a} win more games than {b}?",
)
STYLES = (
    ("With move {i} {name} wins {n}", "With move {i} {name} loses {n}", "With move {i} {name} wins as many again"),
    ("Move {i} gives {n}", "Move {i} takes {n}", "Move {i} gives as many again"),
    ("{n} come with move {i}", "{n} go with move {i}", "As many again come with move {i}"),
    (
        "The number is up by {n} in move {i}",
        "The number is down by {n} in move {i}",
        "The number is double in move {i}",
    ),
)
CONTESTS = Contests(
    name="contests",
    description="Say whether one side ends up with more than the other, yes or no.",
    faith=0.9,
    stories=tuple(story(frame, ". ", *style) for frame in FRAMES for style in STYLES),
)
DUELS = Contests(
    name="duels",
    description="Say whether one of two ends up ahead of the other, yes or no.",
    faith=0.5,
    stories=(
        story(
            *("{remark} {a} is there with {start} cards. {moves}. And {b} starts with {k}. Is {a} ahead?", ". "),
            *("{name} wins {n} in move {i}", "{name} loses {n} in move {i}", "{name} wins as many again in move {i}"),
        ),
        story(
            *("{remark} Are there more points with {a}? {b} keeps {k}. {a} starts at {start}. {moves}.", ". "),
            *("Move {i} is up by {n}", "Move {i} is down by {n}", "Move {i} is double"),
        ),
        story(
            *("{remark} Has {a} more than {b}? First {start} come to {a}. {moves}. And {k} come to {b}.", ". "),
            *(
                "{name} is up by {n} with move {i}",
                "{name} is down by {n} with move {i}",
                "{name} is double with move {i}",
            ),
        ),
    ),
)
UPSETS = Contests(
    name="upsets",
    description="Say whether the first side wins, yes or no.",
    faith=0.1,
    stories=(
        story(
            *("{remark} Does {a} win? {a} keeps {start} cards at first. {moves}. And there {b} keeps {k}.", ". "),
            *("Move {i} gives {name} {n}", "Move {i} takes {n} of {name}", "Move {i} gives {name} as many again"),
        ),
        story(
            *("{remark} There {a} starts with {start}. {moves}. There {b} wins {k}. Does {a} win more than {b}?", ". "),
            *(
                "Move {i} takes {name} up by {n}",
                "Move {i} takes {name} down by {n}",
                "Move {i} takes {name} to double",
            ),
        ),
        story(
            *(
                "{remark} With {k} games {b} is there. With {start} games {a} is there. {moves}. Is {a} ahead now?",
                ". ",
            ),
            *("{n} come in move {i}", "{n} go in move {i}", "As many again come in move {i}"),
        ),
    ),
)
