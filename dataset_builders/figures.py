"""What a card says about a dataset: counts, lengths, key shares, mistakes, who wrote it, what it overlaps with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from toolkit.alignment import key_steps, merge_spans, words
from toolkit.errors import UserError
from toolkit.problem import Problem

Record = Mapping[str, Any]
Split = Callable[[str], Sequence[Hashable]]

# GPT-3's contamination check counts 13-grams; a shorter question counts as one piece.
NGRAM = 13

# An attribution that misses its sum by more than this share of it is not to be trusted.
COMPLETE = 0.05

# Where no tokenizer is named, tokens are those of a BPE of this size, trained on this many pairs of the dataset.
TRAINED_SIZE = 8192
TRAINED_ON = 5000


def split_words(text: str) -> list[str]:
    """Split a text as the published key spans do: words, and single marks of punctuation."""
    return [text[start:end] for start, end in words(text)]


def tokenizer_split(name: str) -> Split:
    """Return a function from text to token ids.

    Args:
        name: Folder with a `tokenizer.json`, such a file, or a Hub id.

    Raises:
        UserError: There is no such tokenizer.
    """
    from pathlib import Path

    from tokenizers import Tokenizer

    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # `tokenizers` raises bare exceptions
        raise UserError(f"tokenizer {name!r} cannot be loaded: {error}") from None
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def trained_split(records: Sequence[Record]) -> Split:
    """Return a function from text to the tokens of a byte-level BPE that is trained on the dual records themselves."""
    from toolkit.vocabulary import train_vocabulary

    sample = [record[side]["rationale"] for record in records[:TRAINED_ON] for side in ("right", "wrong")]
    tokenizer = train_vocabulary(sample, TRAINED_SIZE)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@dataclass(frozen=True)
class KeyShare:
    """How much of the chains of a set of pairs is key.

    Attributes:
        pairs: Pairs counted.
        right: Key units over all units of the right rationales (micro).
        wrong: The same of the wrong ones.
        median_right: Median over pairs of a right rationale's key share.
        median_wrong: The same of the wrong ones.
        median_spans: Median number of runs of key units in a right rationale.
    """

    pairs: int
    right: float
    wrong: float
    median_right: float
    median_wrong: float
    median_spans: float


Flags = tuple[list[bool], list[bool]]


def key_share(pairs: Iterable[tuple[str, str]], split: Split = split_words) -> KeyShare | None:
    """Measure the key share of (right, wrong) texts in words or tokens; None where there are no pairs."""
    return _share([key_steps(split(right), split(wrong)) for right, wrong in pairs])


def key_shares(records: Sequence[Record], split: Split = split_words) -> dict[str, KeyShare]:
    """Return the key share of the rationales of all dual records (`all tasks`) and of each task."""
    by_task: dict[str, list[Flags]] = {"all tasks": []}
    for record in sorted(records, key=lambda record: str(record["task"])):
        flags = key_steps(split(record["right"]["rationale"]), split(record["wrong"]["rationale"]))
        by_task["all tasks"].append(flags)
        by_task.setdefault(record["task"], []).append(flags)
    return {task: share for task, flags in by_task.items() if (share := _share(flags)) is not None}


def _share(flags: Sequence[Flags]) -> KeyShare | None:
    if not flags:
        return None

    def micro(side: int) -> float:
        return sum(sum(pair[side]) for pair in flags) / max(1, sum(len(pair[side]) for pair in flags))

    def middle(side: int) -> float:
        return median(sum(pair[side]) / max(1, len(pair[side])) for pair in flags)

    runs = [len(merge_spans([(0, 0)] * len(right), right)) for right, _ in flags]
    return KeyShare(len(flags), micro(0), micro(1), middle(0), middle(1), median(runs))


@dataclass(frozen=True)
class Lengths:
    """Length statistics of one text column, in words."""

    column: str
    mean: float
    median: float
    p95: int
    longest: int


def lengths(column: str, texts: Iterable[str], split: Split = split_words) -> Lengths | None:
    """Measure the lengths of some texts; None where there are none."""
    counts = sorted(len(split(text)) for text in texts)
    if not counts:
        return None
    return Lengths(column, fmean(counts), median(counts), counts[int(0.95 * (len(counts) - 1))], counts[-1])


@dataclass(frozen=True)
class Completeness:
    """How far integrated gradients miss the change of the function they add up to, relative to that change.

    Attributes:
        scored: Records with such an error.
        median: Its median.
        p95: Its 95th percentile.
        above: Share of records whose error is above `COMPLETE`.
    """

    scored: int
    median: float
    p95: float
    above: float


def completeness(errors: Iterable[float | None]) -> Completeness | None:
    """Sum up completeness errors; a record whose function does not change has none. None where no record has one."""
    known = sorted(error for error in errors if error is not None)
    if not known:
        return None
    above = fmean(error > COMPLETE for error in known)
    return Completeness(len(known), median(known), known[int(0.95 * (len(known) - 1))], above)


@dataclass(frozen=True)
class Writer:
    """Who wrote chains of a dataset, and how it was asked."""

    teacher: str
    model: str
    prompt: str
    sampling: str
    chains: int


def writers(records: Iterable[Record], chains: Sequence[str]) -> list[Writer]:
    """Count the chains of each combination of teacher, model, prompt and sampling, the most first."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for record in records:
        for side in chains:
            chain = record[side]
            if chain is None or chain["provenance"]["completion"] is None:
                continue
            origin = chain["provenance"]
            prompt = origin["template"].partition("@")[0] if origin["template"] else "none"
            counts[origin["teacher"], origin["model"], prompt, _sampling(origin)] += 1
    return [Writer(*key, chains=count) for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _sampling(origin: Mapping[str, Any]) -> str:
    if origin["temperature"] is None:
        return "not known"
    return f"temperature {origin['temperature']:g}, top-p {origin['top_p']:g}, at most {origin['max_tokens']} tokens"


def mistakes(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Count the labelled mistakes of wrong chains by task; empty where nothing is labelled."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        if record["wrong"]["mistake"]:
            counts[record["task"]][record["wrong"]["mistake"]] += 1
    return {task: counts[task] for task in sorted(counts)}


@dataclass(frozen=True)
class Overlap:
    """How many questions of an evaluation set are in the data.

    Attributes:
        name: The evaluation set.
        questions: Its questions.
        exact: Those that are a question of the data, case and white space aside.
        ngram: Those that share a run of `NGRAM` words with one.
    """

    name: str
    questions: int
    exact: int
    ngram: int


def overlap(name: str, problems: Sequence[Problem], questions: Iterable[str]) -> Overlap:
    """Search the questions of an evaluation set in the questions of the data."""
    known = {_plain(question) for question in questions}
    grams = {gram for question in known for gram in _ngrams(question)}
    asked = [_plain(problem.question) for problem in problems]
    return Overlap(
        name,
        len(asked),
        sum(question in known for question in asked),
        sum(any(gram in grams for gram in _ngrams(question)) for question in asked),
    )


def _plain(question: str) -> tuple[str, ...]:
    return tuple(word for word in split_words(question.casefold()) if word[0].isalnum())


def _ngrams(plain: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    return (plain[start : start + NGRAM] for start in range(max(1, len(plain) - NGRAM + 1)))
