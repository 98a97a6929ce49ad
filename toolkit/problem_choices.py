"""Answer options as data sets write them, and which of them a gold answer names. What is ambiguous is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from toolkit.errors import UserError
from toolkit.problem_values import clean, is_missing, unique_keys, written

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
AnswerNames = Literal["label", "text", "index"]
_FORMS = (
    f"allowed is a list of 2 to {len(LETTERS)} texts or of objects `{{label, text}}`, an object of the lists `label` "
    "and `text`, an object with a text for each letter, or JSON of one of these"
)


class Options(NamedTuple):
    """The answer options of a question.

    Attributes:
        texts: Their texts in order, without letters of their own (`A)21`).
        labels: What the source calls them, empty where it has no names for them.
        as_written: Their texts with such letters.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    as_written: tuple[str, ...]


def read_options(value: Any, column: str) -> Options:
    """Return the answer options that a column holds.

    Raises:
        UserError: It is none of the forms that are known, an option or a label is missing or empty, or a label is there
            twice.
    """
    labels, value = _parts(_parsed(value, column) if isinstance(value, str) else value, column)
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= len(LETTERS):
        found = f"{len(value)} options" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise UserError(f"column {column!r}: found {found}; {_FORMS}")
    if not isinstance(labels, list | tuple) or (labels and len(labels) != len(value)):
        raise UserError(f"column {column!r}: the labels {labels!r} are not one for each of the {len(value)} options")
    as_written = _texts(value, column, "option")
    # Options that carry their own letters (`A)21`, `(B) five`) lose them: they are lettered anew below the question.
    own = [re.match(rf"\(?{letter}[).:]\s*", text) for letter, text in zip(LETTERS, as_written, strict=False)]
    texts = as_written
    if all(own):
        texts = tuple(text[match.end() :] for text, match in zip(as_written, own, strict=True) if match)
    _have_text(texts, column, "option")
    names = _texts(labels, column, "label")
    _have_text(names, column, "label")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UserError(f"column {column!r}: label {name!r} is there twice")
    return Options(texts, names, as_written)


def _parts(value: Any, column: str) -> tuple[Any, Any]:
    """Return the labels of options, none where they have none, and their texts, neither of them checked."""
    if isinstance(value, Mapping):
        return (value["label"], value["text"]) if value.keys() == {"text", "label"} else _by_letter(value, column)
    if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
        for one in value:
            if one.keys() != {"text", "label"}:
                raise UserError(f"column {column!r}: found an option with the keys {list(one)}; {_FORMS}")
        return [one["label"] for one in value], [one["text"] for one in value]
    return (), value


def chosen(gold: Any, options: Options, column: str, names: AnswerNames | None) -> int:
    """Return the index of the option that a gold answer names.

    Args:
        gold: The answer: a label (a letter where the source has none), an option's text, or an index from 0.
        options: The options.
        column: Where the answer stands.
        names: Which of the three it is, where that is known.

    Raises:
        UserError: It names none, or one by one way and another by another; or an option is there twice, unless the
            answer is a text.
    """
    if is_missing(gold) or gold == "":
        raise UserError(f"no gold answer: column {column!r} has no value")
    found = {way: place for way, place in _readings(gold, options, column).items() if names in (None, way)}
    if not found:
        way = f" by its {names}" if names else ""
        raise UserError(f"gold answer {gold!r} names none of the options {list(options.texts)}{way}")
    if len(set(found.values())) > 1:
        readings = " and ".join(f"{options.texts[place]!r} by its {way}" for way, place in found.items())
        raise UserError(
            f"gold answer {gold!r} names {readings}; say which it is: `columns.answer_names: {next(iter(found))}`"
        )
    place = next(iter(found.values()))
    # By its text an answer is the first of those that read the same, as the files of CommonsenseQA have them; what a
    # letter or an index means is ambiguous where two options are equal.
    if set(found) != {"text"}:
        _are_distinct(options.texts, column)
    return place


def _readings(gold: Any, options: Options, column: str) -> dict[str, int]:
    """Return the option that a gold answer is, by each way in which it is one."""
    if isinstance(gold, bool):
        words = ("true", "yes") if gold else ("false", "no")
        said = [place for place, text in enumerate(options.texts) if text.casefold() in words]
        return {"text": said[0]} if len(said) == 1 else {}
    name = written(gold, column)
    found: dict[str, int] = {}
    if options.labels:
        # Names of the source, distinguished by case: `a` is no `A` there.
        for one in (name.strip("()."), name):
            if one in options.labels:
                found["label"] = options.labels.index(one)
    elif len(letter := name.strip("().").upper()) == 1 and letter in LETTERS[: len(options.texts)]:
        found["label"] = LETTERS.index(letter)
    for texts in (options.texts, options.as_written):
        if name in texts:
            found["text"] = texts.index(name)
    # Of options that are numbered by their source, a number is a label and no index: they may start at 1.
    is_index = isinstance(gold, int) or (isinstance(gold, str) and name.isascii() and name.isdecimal())
    numbered = any(label.isdecimal() for label in options.labels)
    if is_index and not numbered and 0 <= int(name) < len(options.texts):
        found["index"] = int(name)
    return found


def _parsed(text: str, column: str) -> Any:
    """Return what a cell of a table holds, in which options can only be JSON."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"column {column!r}: found {text[:60]!r}, which is not JSON ({error}); {_FORMS}") from None


def _by_letter(options: Mapping[Any, Any], column: str) -> tuple[list[str], list[Any]]:
    """Return labels and texts of options that are an object of letters, or of numbers from 0 or 1, in their order."""
    keys = [str(key) for key in options]
    n = min(len(keys), len(LETTERS))
    for labels in (list(LETTERS[:n]), list(LETTERS[:n].lower()), [*map(str, range(n))], [*map(str, range(1, n + 1))]):
        if sorted(keys) == sorted(labels):
            named = dict(zip(keys, options.values(), strict=True))
            return labels, [named[label] for label in labels]
    raise UserError(f"column {column!r}: found an object of the keys {keys[:30]}; {_FORMS}")


def _texts(values: Sequence[Any], column: str, what: str) -> tuple[str, ...]:
    texts = []
    for place, value in enumerate(values):
        if is_missing(value):
            raise UserError(f"column {column!r}: {what} {place + 1} of {len(values)} has no value")
        if not isinstance(value, str | int | float) and type(value).__name__ != "Decimal":
            raise UserError(f"column {column!r}: {what} {place + 1} of {len(values)} is a {type(value).__name__}")
        texts.append(written(value, column))
    return tuple(texts)


def _have_text(texts: Sequence[str], column: str, what: str) -> None:
    for place, text in enumerate(texts):
        if not clean(text, column).strip():
            raise UserError(f"column {column!r}: {what} {place + 1} of {len(texts)} is empty")


def _are_distinct(texts: Sequence[str], column: str) -> None:
    for place, text in enumerate(texts):
        if text in texts[:place]:
            raise UserError(f"option {text!r} is there twice, and the gold answer in column {column!r} is not its text")
