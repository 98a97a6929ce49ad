"""From records to weighted tokens: which tokens there are, what each weighs and what it counts for.

How encoded sequences are arranged in a batch is `layout`'s business, how their losses become one number is
`objective`'s. Every reduction is expressed here, per token, by two numbers:

    loss = sum_t  weight_t * CE_t / D[group(t)],      D[g] = sum of count_t over the tokens of g

so that the denominator of an optimizer step is a plain sum over everything that takes part in it, however it
is split into micro-batches, processes or packed rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.alignment import key_steps
from toolkit.seams import Seams
from toolkit.soft_targets import SoftTarget
from toolkit.stage_views import StageViews
from toolkit.tokenized_views import PROMPT, TokenizedView, tokenize
from toolkit.transforms import Swapped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toolkit.recipe import Reduction, Stage
    from toolkit.stage_views import Shown

# Columns of an encoded dataset: one list per sequence, all of its length.
COLUMNS = ("input_ids", "weights", "counts", "views")
# What each token is to be, in datasets of a stage that has soft targets: a list of ids, and of their probabilities.
SOFT_COLUMNS = ("soft_ids", "soft_probs")
# What a sampler knows a sequence by, in datasets of a stage that has a balanced view.
SAMPLED_BY = ("question", "record")


@dataclass(slots=True)
class EncodedSequence:
    """One training sequence; every list has its length T.

    Attributes:
        input_ids: Token ids.
        weights: Factor of each token's cross-entropy, signed; divided by the example's denominator already
            where the reduction is by example.
        counts: What each token adds to its group's denominator.
        views: Index of the view in its stage.
    """

    input_ids: list[int]
    weights: list[float]
    counts: list[float]
    views: list[int]


@dataclass(slots=True)
class Softened:
    """How much of a view's segments with soft targets has them.

    Attributes:
        tokens: Tokens of these segments, the end of sequence aside.
        aligned: Those that got a teacher's distribution; the others are to be themselves.
        mass: Probability that these got, added up: a teacher that told its most likely tokens told less than 1 each.
        unmapped: Probability of what the teacher told beside it, which is no token of the student, added up.
    """

    tokens: int = 0
    aligned: int = 0
    mass: float = 0.0
    unmapped: float = 0.0

    def add(self, tokenized: TokenizedView) -> None:
        """Count a view's tokens."""
        numbers = [number for number, segment in enumerate(tokenized.view.target) if segment.teacher is not None]
        self.tokens += int(np.isin(tokenized.segments[:-1], numbers).sum())
        for target in filter(None, tokenized.soft):
            self.aligned += 1
            self.mass += sum(target.probs)
            self.unmapped += target.unmapped


@dataclass(slots=True)
class EncodingReport:
    """What became of a stage's records.

    Attributes:
        records: Records seen.
        sequences: Sequences encoded.
        tokens: Tokens encoded, per view.
        scored: Tokens in scored segments, per view.
        weighted: Tokens with a weight other than 0, per view.
        softened: Soft targets, per view that has some.
        swapped: Texts of other records, per view that has some.
        dropped: Records left out, with the reason.
        longest: Tokens of the longest sequence seen, dropped ones included.
        held_out: What became of the records held out of training, which none of the others counts; None without any.
    """

    records: int = 0
    sequences: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    weighted: dict[str, int] = field(default_factory=dict)
    softened: dict[str, Softened] = field(default_factory=dict)
    swapped: dict[str, Swapped] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    longest: int = 0
    held_out: EncodingReport | None = None


def weigh(
    tokenized: TokenizedView, view_index: int, coefficient: float, key: Sequence[bool] | None, reduction: Reduction
) -> EncodedSequence:
    """Give every token its weight and its count.

    Args:
        tokenized: The view's tokens.
        view_index: Position of the view in its stage.
        coefficient: The view's signed coefficient.
        key: Key-step flags of the target tokens, or None where all weigh alike.
        reduction: How token losses become one number.
    """
    segment_weights = tokenized.segment_weights()
    weights = segment_weights.copy()
    if key is not None:
        weights[tokenized.segments != PROMPT] *= np.asarray(key, dtype=float)
    scored = segment_weights != 0
    if reduction.over == "all":
        counts = scored.astype(float)
    elif reduction.by == "token":
        counts = np.abs(weights * coefficient)
    else:
        # Within a view the coefficient would cancel itself out of a weighted mean.
        counts = np.abs(weights)
    row_weight = tokenized.view.row_weight
    weights = weights * coefficient * row_weight
    if reduction.by == "example":
        # The example's own mean is taken here; what is left to divide by is the number of examples of the view.
        total = counts.sum()
        weights = weights / total if total else weights * 0.0
        counts = np.zeros_like(counts)
        counts[int(np.argmax(scored))] = 1.0
    elif reduction.over == "weighted":
        counts = counts * abs(row_weight)
    return EncodedSequence(
        tokenized.input_ids.tolist(), weights.tolist(), counts.tolist(), [view_index] * len(tokenized.input_ids)
    )


def encode_record(
    tokenizer: PreTrainedTokenizerBase,
    views: StageViews,
    index: int,
    prompt_format: str = "plain",
) -> list[tuple[TokenizedView, EncodedSequence]]:
    """Encode the record at a position as a stage's views show it, in the order of the views; empty if it is left out.

    The two views with `token_weights: key_steps` are aligned with each other on their target tokens, end of
    sequence included: one script, which leads to the view that is listed first.
    """
    seams = Seams(tokenizer, prompt_format)
    encoded, _ = next(_encode(tokenizer, [views.show(index)], views.stage, prompt_format, seams))
    return encoded


def _encode(
    tokenizer: PreTrainedTokenizerBase, shown: Sequence[Shown], stage: Stage, prompt_format: str, seams: Seams
) -> Iterator[tuple[list[tuple[TokenizedView, EncodedSequence]], str | None]]:
    """Yield the sequences of each record; instead of them the reason why it is left out, where there is one."""
    names = list(stage.views)
    views = list(stage.views.values())
    paired = [index for index, view in enumerate(views) if view.token_weights == "key_steps"]
    sequences = tokenize(tokenizer, [view for one in shown for _, view in one.sequences], prompt_format)
    tokenized = zip(sequences, seams.faults(sequences), strict=True)
    for one in shown:
        of_record, faults = [], []
        for index, _ in one.sequences:
            tokens, fault = next(tokenized)
            of_record.append((index, tokens))
            faults += [f"{names[index]}: {why}" for why in (tokens.fault, fault) if why]
        if one.reason or faults:
            yield [], one.reason or faults[0]
            continue
        flags: dict[int, list[bool]] = {}
        targets = {index: tokens.target for index, tokens in of_record if index in paired}
        if len(targets) == 2:
            right, wrong = paired
            flags[right], flags[wrong] = key_steps(targets[right], targets[wrong])
        weighed = [
            (tokens, weigh(tokens, index, views[index].coefficient, flags.get(index), stage.reduction))
            for index, tokens in of_record
        ]
        yield weighed, None


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    stage: Stage,
    max_length: int | None,
    prompt_format: str = "plain",
    batch_size: int = 512,
) -> tuple[dict[str, list[Any]], EncodingReport]:
    """Encode a stage's records.

    A record one of whose sequences does not fit into `max_length` tokens is left out whole, and counted: cutting it
    would drop its answer, and half a pair is not a pair. So is one that a transform cannot be applied to, one that
    holds a control token of the student's as text, and one whose prompt the tokenizer runs together with its target.

    Args:
        tokenizer: The student's, fast.
        rows: Records.
        stage: Views and reduction.
        max_length: Longest sequence in tokens, None for no limit.
        prompt_format: `plain` or `chat`.
        batch_size: Records tokenised at once.

    Returns:
        The columns of the encoded dataset, and what became of the records.
    """
    views, seams = StageViews(stage, rows), Seams(tokenizer, prompt_format)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    sampled = is_sampled(stage)
    softened = {
        name: Softened() for name, view in stage.views.items() if any(piece.soft_targets for piece in view.target)
    }
    if softened:
        columns |= {name: [] for name in SOFT_COLUMNS}
    if sampled:
        columns |= {name: [] for name in SAMPLED_BY}
    names = list(stage.views)
    tokens_of, scored_of, weighted_of = (dict.fromkeys(names, 0) for _ in range(3))
    report = EncodingReport(
        tokens=tokens_of, scored=scored_of, weighted=weighted_of, softened=softened, swapped=views.swapped
    )
    for start in range(0, len(rows), batch_size):
        batch = range(start, min(start + batch_size, len(rows)))
        shown = [views.show(index) for index in batch]
        for index, (encoded, reason) in zip(batch, _encode(tokenizer, shown, stage, prompt_format, seams), strict=True):
            row = rows[index]
            report.records += 1
            longest = max((len(sequence.input_ids) for _, sequence in encoded), default=0)
            report.longest = max(report.longest, longest)
            if max_length is not None and longest > max_length:
                reason = f"{longest} tokens, {max_length} allowed"
            if reason is not None:
                report.dropped[str(row.get("id", index))] = reason
                continue
            for tokens, sequence in encoded:
                name = names[sequence.views[0]]
                report.sequences += 1
                report.tokens[name] += len(sequence.input_ids)
                report.scored[name] += int((tokens.segment_weights() != 0).sum())
                report.weighted[name] += sum(weight != 0 for weight in sequence.weights)
                for column in COLUMNS:
                    columns[column].append(getattr(sequence, column))
                if softened:
                    ids, probs = _target_rows(tokens)
                    columns["soft_ids"].append(ids)
                    columns["soft_probs"].append(probs)
                if name in softened:
                    softened[name].add(tokens)
                if sampled:
                    columns["question"].append(str(row["question"]))
                    columns["record"].append(str(row["id"]))
    return columns, report


def _target_rows(tokens: TokenizedView) -> tuple[list[list[int]], list[list[float]]]:
    """Return what each token is to be, as ids and as probabilities; a token without soft target is itself."""
    rows = [
        target or SoftTarget((int(own),), (1.0,)) for own, target in zip(tokens.input_ids, tokens.soft, strict=True)
    ]
    return [list(row.ids) for row in rows], [list(row.probs) for row in rows]


def is_sampled(stage: Stage) -> bool:
    """Whether a view of the stage sees another record of each question in every epoch."""
    return any(view.select.draw == "balanced" for view in stage.views.values())
