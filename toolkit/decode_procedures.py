"""How an answer is got from a student: one completion, a cascade, a loop over sub-questions, a comparison of options.

A procedure is a list of turns. Each renders a view's prompt, lets the student write, and reads what it wrote back
through the view's target, so that later prompts can take it: training and decoding share the view's templates and
nothing is written twice. Ground floor: no model, no tokenizer; whoever has them answers what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from toolkit.answers import ANSWER_PHRASE
from toolkit.decoding import Generation
from toolkit.errors import UserError
from toolkit.thinking import closes_thinking, split_thinking
from toolkit.views import Segment, columns, fill, items, joined, parse_each, read_back, role


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """One turn, with the templates of its view.

    Attributes:
        view: The view's name.
        prompt: Template of its prompt.
        target: (template, role, weight) of its target's segments.
        forced: How many of the first segments are given.
        max_new_tokens: Longest completion.
        stop: Texts that end it.
        each: `step in steps`, or None.
        before: Template of an earlier item.
        option: Template of an option's `letter` and `text` where options are compared, None where the student writes.
        normalise: Whether an option's log-likelihood is divided by its tokens.
        run: Variable in which the program that is written leaves its answer, None where it is no program.
    """

    view: str
    prompt: str
    target: tuple[tuple[str, str, float], ...]
    forced: int = 0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    each: str | None = None
    before: str | None = None
    option: str | None = None
    normalise: bool = False
    run: str | None = None

    @property
    def written(self) -> list[str]:
        """Templates of the segments that the student writes."""
        return [template for template, _, _ in self.target[self.forced :]]


@dataclass(frozen=True, slots=True)
class Procedure:
    """Turns in order, and how repeated ones end; see `toolkit.recipe_sections.Decode`."""

    turns: tuple[TurnPlan, ...]
    until: str | None = None
    rounds: int = 12


@dataclass(frozen=True, slots=True)
class Ask:
    """What a student is asked to write.

    Attributes:
        turn: The turn that asks.
        text: What the student is given, the start of its answer included where segments are forced.
    """

    turn: TurnPlan
    text: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Options whose likelihood a student is asked for.

    Attributes:
        turn: The turn that asks.
        text: What the student is given, as in `Ask`.
        prompt: Before any chat template, and without the start of the answer.
        options: Segments of the target for each option, those given included; segments of weight 0 are read and not
            counted.
    """

    turn: TurnPlan
    text: str
    prompt: str
    options: tuple[tuple[Segment, ...], ...]


@dataclass(frozen=True, slots=True)
class Said:
    """One turn as it went.

    Attributes:
        view: The turn's view.
        prompt: What the student was given, the start of its answer included where that was forced.
        generation: What it wrote behind it.
    """

    view: str
    prompt: str
    generation: Generation


@dataclass(frozen=True, slots=True)
class Answered:
    """How a question was answered.

    Attributes:
        turns: Every turn, in order.
        answer: The text that holds the answer: the last completion, up to the end of the answer's segment. A program
            that is to be run, all of it, until `toolkit.evaluation.with_values` has put its value in its place.
        status: What came of running it (`toolkit.programs`); None for what is no program.
    """

    turns: tuple[Said, ...]
    answer: str
    status: str | None = None


Conversation = Generator[Ask | Compare, Generation, Answered]
Frame = Callable[[str], str]  # from a prompt to what the student reads: itself, or a turn of its chat template


def converse(procedure: Procedure, columns_of_problem: Mapping[str, Any], frame: Frame = str) -> Conversation:
    """Answer one question: yield what to ask the student, take what it writes, return how it went.

    Args:
        procedure: The turns.
        columns_of_problem: Columns of the question under the names that records have.
        frame: Applied to every prompt.

    Raises:
        UserError: A prompt takes a column that is neither the question's nor written by an earlier turn, or options
            are to be compared where the question has none.
    """
    known = dict(columns_of_problem)
    said: list[Said] = []
    for each, group in groupby(procedure.turns, key=lambda turn: turn.each):
        turns = list(group)
        if each is None:
            for turn in turns:
                known = _merged(known, (yield from _take(turn, known, said, frame)))
        else:
            yield from _repeat(procedure, each, turns, known, said, frame)
    last = procedure.turns[-1]
    finished = said and said[-1].view == last.view  # a student that wrote no sub-question was never asked the last
    text = said[-1].generation.text if finished else ""
    return Answered(tuple(said), split_thinking(text)[0] if last.run else answer_part(last, text) if finished else "")


def _take(
    turn: TurnPlan, known: Mapping[str, Any], said: list[Said], frame: Frame
) -> Generator[Ask | Compare, Generation, dict[str, str]]:
    """Take one turn; return the columns that were to be written in it, empty where the student did not get so far."""
    prompt = fill(turn.prompt, known)
    given = "".join(fill(template, known) for template, _, _ in turn.target[: turn.forced])
    text = frame(prompt) + given
    if turn.option is None:
        written = yield Ask(turn, text)
    else:
        written = yield Compare(turn, text, prompt, _options(turn, known))
    said.append(Said(turn.view, text, written))
    empty = dict.fromkeys((path for template in turn.written for path in columns(template)), "")
    return empty | read_back(turn.written, written.text)


def _repeat(
    procedure: Procedure,
    each: str,
    turns: Sequence[TurnPlan],
    known: dict[str, Any],
    said: list[Said],
    frame: Frame,
) -> Generator[Ask | Compare, Generation, None]:
    """Take turns round by round: one round for each item of the list, or until the student ends it."""
    name, path = parse_each(each)
    listed = _as_list(known.get(path))
    finished: list[Any] = []
    for number in range(procedure.rounds if listed is None else min(len(listed), procedure.rounds)):
        item: dict[str, Any] = dict(listed[number]) if listed is not None else {}
        first_of_round = len(said)
        for turn in turns:
            # The item stands last in its list, as in training, so that `before` tells of the earlier ones.
            *_, shown = items({**known, path: [*finished, item]}, each, turn.before)
            written = yield from _take(turn, shown, said, frame)
            item |= {path.removeprefix(f"{name}."): value for path, value in written.items()}
        finished.append(item)
        if procedure.until and any(procedure.until in one.generation.text for one in said[first_of_round:]):
            break
    known[path] = finished


def _merged(known: Mapping[str, Any], written: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns with what was written under their dotted paths."""
    merged: dict[str, Any] = dict(known)
    for path, text in written.items():
        inner = merged
        *outer, last = path.split(".")
        for part in outer:
            inner[part] = dict(inner[part]) if isinstance(inner.get(part), Mapping) else {}
            inner = inner[part]
        inner[last] = text
    return merged


def _as_list(written: Any) -> list[dict[str, str]] | None:
    """Return what earlier turns wrote of a list as its items, None where nothing was written.

    `{steps.question}` is written one per line, so each line of it is the question of one step.
    """
    if written is None or isinstance(written, list):  # of repeated turns before these
        return written
    lines = {name: [line for line in text.splitlines() if line.strip()] for name, text in written.items()}
    return [
        {name: of_name[number] if number < len(of_name) else "" for name, of_name in lines.items()}
        for number in range(max(map(len, lines.values()), default=0))
    ]


def _options(turn: TurnPlan, known: Mapping[str, Any]) -> tuple[tuple[Segment, ...], ...]:
    """Return the target for each option, up to the segment that holds the answer."""
    choices = known.get("choices") or []
    if not choices:
        raise UserError(f"decode.choices: the question {known.get('id', '?')!r} has no options to compare")
    template = str(turn.option)
    answers = {path for text, segment_role, _ in turn.target if segment_role == "answer" for path in columns(text)}
    if len(answers) != 1:
        raise UserError(
            f"decode.choices: the segments of view {turn.view!r} with the role answer hold {sorted(answers)}, "
            "allowed one column"
        )
    (answer,) = answers
    last = max(index for index, (_, segment_role, _) in enumerate(turn.target) if segment_role == "answer")
    options = []
    for index, text in enumerate(choices):
        written = fill(template, {"letter": chr(ord("A") + index), "text": text})
        options.append(
            tuple(
                Segment(fill(piece, known, {answer: written}), segment_role, weight if number >= turn.forced else 0.0)
                for number, (piece, segment_role, weight) in enumerate(turn.target[: last + 1])
            )
        )
    return tuple(options)


def answer_part(turn: TurnPlan, completion: str) -> str:
    """Return the text in which a completion's answer is looked for, as a closing clause where its place is known.

    The view's target says where: behind the last of its markers (` --> `, `So the answer is: `), or at the very start
    of an answer-first target, up to where its rationale begins, in which a later answer is not the answer. A
    completion that keeps to neither is searched as a whole; nothing in the answer's place is no answer.

    What a student thought is not looked at. Where the view itself closes thinking before its answer (`</think>`), a
    completion that does not was cut off within it, and has no answer.
    """
    written = turn.target[turn.forced :]
    pieces = joined([template for template, _, _ in written])
    answers = {path for template, segment_role, _ in written if segment_role == "answer" for path in columns(template)}
    place = next((index for index, piece in enumerate(pieces) if piece.is_column and piece.text in answers), None)
    if place is None:
        return split_thinking(completion)[0]
    marker = pieces[place - 1].text if place and not pieces[place - 1].is_column else ""
    behind = pieces[place + 1].text if place + 1 < len(pieces) and not pieces[place + 1].is_column else ""
    starts_with_it = place == 0 or (place == 1 and bool(marker))
    if not closes_thinking(marker):
        completion = split_thinking(completion)[0]
    elif marker.strip() not in completion:
        return ""
    if marker.strip() and marker.strip() in completion:
        said = completion.rpartition(marker.strip())[2]
    elif starts_with_it:
        said = completion
    else:
        return completion
    if end := behind.strip(" ."):  # who forgets the full stop has still begun what follows
        said = said.partition(end)[0]
    return f"{ANSWER_PHRASE} {said.strip()}" if said.strip() else ""


def plan(name: str, view: Any, turn: Any) -> TurnPlan:
    """Put a view and a turn of the recipe together.

    Args:
        name: The view's name.
        view: The `toolkit.recipe.View`.
        turn: The `toolkit.recipe_sections.Turn`.
    """
    return TurnPlan(
        view=name,
        prompt=view.prompt,
        target=tuple((piece.text, piece.role or role(piece.text), piece.weight) for piece in view.target),
        forced=turn.forced,
        max_new_tokens=turn.max_new_tokens,
        stop=tuple(turn.stop),
        each=view.each,
        before=view.before,
        option=turn.choices.write if turn.choices else None,
        normalise=bool(turn.choices and turn.choices.normalise),
        run=turn.run,
    )
