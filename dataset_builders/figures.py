"""What a card says about a dataset: counts, lengths, key shares, mistakes, who wrote it, what it overlaps with.

Every figure takes one look at each record and keeps counts: how many records there are makes no difference to memory.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from statistics import fmean, median
from typing import Any

from toolkit.alignment import key_steps, merge_spans, spelt, words
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
    return spelt(text, words(text))


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


def trained_split(records: Iterable[Record]) -> Split:
    """Return a function from text to the tokens of a byte-level BPE that is trained on the dual records themselves."""
    from toolkit.vocabulary import train_vocabulary

    sample = (record[side]["rationale"] for record in islice(records, TRAINED_ON) for side in ("right", "wrong"))
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
        by_share: By side (`right`, `wrong`), the number of pairs by key share.
    """

    pairs: int
    right: float
    wrong: float
    median_right: float
    median_wrong: float
    median_spans: float
    by_share: Mapping[str, Mapping[float, int]]


@dataclass
class _KeyCounts:
    """Pairs counted by what their key share is made of: for each side by (key units, units), and by runs of key units.

    Distinct numbers are few, so this is small for any number of pairs, and exact.
    """

    right: Counter[tuple[int, int]] = field(default_factory=Counter)
    wrong: Counter[tuple[int, int]] = field(default_factory=Counter)
    runs: Counter[int] = field(default_factory=Counter)

    def count(self, right: Sequence[Hashable], wrong: Sequence[Hashable]) -> None:
        flags = key_steps(right, wrong)
        self.right[sum(flags[0]), len(flags[0])] += 1
        self.wrong[sum(flags[1]), len(flags[1])] += 1
        self.runs[len(merge_spans([(0, 0)] * len(flags[0]), flags[0]))] += 1

    def __add__(self, other: _KeyCounts) -> _KeyCounts:
        return _KeyCounts(self.right + other.right, self.wrong + other.wrong, self.runs + other.runs)

    def share(self) -> KeyShare | None:
        if not self.runs:
            return None

        def micro(side: Counter[tuple[int, int]]) -> float:
            key, units = (sum(numbers[part] * pairs for numbers, pairs in side.items()) for part in (0, 1))
            return key / max(1, units)

        def by_share(side: Counter[tuple[int, int]]) -> Counter[float]:
            shares = Counter[float]()
            for (key, units), pairs in side.items():
                shares[key / max(1, units)] += pairs
            return shares

        right, wrong = by_share(self.right), by_share(self.wrong)
        return KeyShare(
            self.runs.total(),
            micro(self.right),
            micro(self.wrong),
            median(right.elements()),
            median(wrong.elements()),
            median(self.runs.elements()),
            {"right": right, "wrong": wrong},
        )


def key_share(pairs: Iterable[tuple[str, str]], split: Split = split_words) -> KeyShare | None:
    """Measure the key share of (right, wrong) texts in words or tokens; None where there are no pairs."""
    counts = _KeyCounts()
    for right, wrong in pairs:
        counts.count(split(right), split(wrong))
    return counts.share()


def key_shares(records: Iterable[Record], splits: Mapping[str, Split]) -> dict[str, dict[str, KeyShare]]:
    """Return by unit the key share of the rationales of all dual records (`all tasks`) and of each task.

    Args:
        records: The records.
        splits: How a text is split into each unit.
    """
    counted: dict[str, dict[str, _KeyCounts]] = {unit: {} for unit in splits}
    for record in records:
        for unit, split in splits.items():
            counts = counted[unit].setdefault(str(record["task"]), _KeyCounts())
            counts.count(split(record["right"]["rationale"]), split(record["wrong"]["rationale"]))
    shares: dict[str, dict[str, KeyShare]] = {}
    for unit, tasks in counted.items():
        by_task = {"all tasks": sum(tasks.values(), _KeyCounts()), **{task: tasks[task] for task in sorted(tasks)}}
        shares[unit] = {task: share for task, counts in by_task.items() if (share := counts.share()) is not None}
    return shares


@dataclass(frozen=True)
class Lengths:
    """Length statistics of one text column, in words, and the number of records by length."""

    column: str
    mean: float
    median: float
    p95: int
    longest: int
    tally: Mapping[int, int]


def lengths(texts: Iterable[Mapping[str, str]], split: Split = split_words) -> list[Lengths]:
    """Measure the lengths of the texts of each column; `texts` are those of each record by column."""
    tallies: dict[str, Counter[int]] = {}
    for record in texts:
        for column, text in record.items():
            tallies.setdefault(column, Counter())[len(split(text))] += 1
    measured = []
    for column, tally in tallies.items():
        counts = sorted(tally.elements())
        p95 = counts[int(0.95 * (len(counts) - 1))]
        measured.append(Lengths(column, fmean(counts), median(counts), p95, counts[-1], tally))
    return measured


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
    known = sorted(array("d", (error for error in errors if error is not None)))
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
    if origin["max_tokens"] is None:
        return "not known"
    given = (("temperature", origin["temperature"]), ("top-p", origin["top_p"]))
    shown = (f"{name} {'of the server' if value is None else format(value, 'g')}" for name, value in given)
    return f"{', '.join(shown)}, at most {origin['max_tokens']} tokens"


def mistakes(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Count the labelled mistakes of wrong chains by task; empty where nothing is labelled."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        if record["wrong"]["mistake"]:
            counts[record["task"]][record["wrong"]["mistake"]] += 1
    return {task: counts[task] for task in sorted(counts)}


@dataclass(frozen=True)
class LabelCell:
    """Edits of questions from one answer to another.

    Attributes:
        before: Answer of the originals.
        after: Answer that they were edited towards.
        asked: Edits.
        accepted: Those in `train`.
        ratio: Median edit ratio of these, 0 without any.
    """

    before: str
    after: str
    asked: int
    accepted: int
    ratio: float

    @property
    def told(self) -> str:
        """The two answers."""
        return f"{self.before} to {self.after}"


def label_cells(records: Iterable[Record]) -> list[LabelCell]:
    """Count edits and those kept by the answers before and after, in the order of these; none without edits."""
    asked: Counter[tuple[str, str]] = Counter()
    ratios: dict[tuple[str, str], array[float]] = defaultdict(lambda: array("d"))
    for record in records:
        if edit := record.get("edit"):
            cell = edit["from_answer"], record["answer"]
            asked[cell] += 1
            if record["reason"] is None:
                ratios[cell].append(edit["ratio"])
    return [
        LabelCell(*cell, asked[cell], len(ratios[cell]), median(ratios[cell]) if ratios[cell] else 0.0)
        for cell in sorted(asked)
    ]


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


def overlaps(sets: Mapping[str, Sequence[Problem]], questions: Iterable[str]) -> list[Overlap]:
    """Search the questions of evaluation sets in the questions of the data.

    It is the sets whose words are kept, which are small, and the data that is gone through.
    """
    asked = {name: [_plain(problem.question) for problem in problems] for name, problems in sets.items()}
    wanted = {gram for plain in asked.values() for question in plain for gram in (question, *_ngrams(question))}
    exact: set[tuple[str, ...]] = set()
    grams: set[tuple[str, ...]] = set()
    for question, _ in groupby(questions) if wanted else ():  # several chains of a question follow one another
        plain = _plain(question)
        exact |= {plain} & wanted
        grams |= wanted.intersection(_ngrams(plain))
    return [
        Overlap(
            name,
            len(plain),
            sum(question in exact for question in plain),
            sum(any(gram in grams for gram in _ngrams(question)) for question in plain),
        )
        for name, plain in asked.items()
    ]


def _plain(question: str) -> tuple[str, ...]:
    return tuple(word for word in split_words(question.casefold()) if word[0].isalnum())


def _ngrams(plain: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    return (plain[start : start + NGRAM] for start in range(max(1, len(plain) - NGRAM + 1)))
