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
from toolkit.errors import UserError
from toolkit.soft_targets import SoftTarget, align, single_tokens
from toolkit.stage_views import StageViews
from toolkit.transforms import Swapped, Unusable
from toolkit.views import RenderedView

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
_PROMPT = -1


@dataclass(slots=True)
class TokenizedView:
    """A rendered view as tokens.

    Attributes:
        input_ids: Token ids of prompt, target and end of sequence, shape (T,).
        segments: Index of the target segment each token belongs to, -1 for the prompt, shape (T,). The end of
            the sequence belongs to the last scored segment.
        view: What was tokenised.
        soft: What each token is to be where a teacher says so, None where it is itself; length T.
        fault: Why a transform of tokens cannot be applied to it, None where nothing stands in the way.
    """

    input_ids: np.ndarray
    segments: np.ndarray
    view: RenderedView
    soft: list[SoftTarget | None]
    fault: str | None = None

    @property
    def target(self) -> list[int]:
        """Token ids of the target, end of sequence included."""
        return [int(token) for token in self.input_ids[self.segments != _PROMPT]]

    def segment_weights(self) -> np.ndarray:
        """Weight of each token's segment, 0 in the prompt, shape (T,)."""
        by_segment = np.array([segment.weight for segment in self.view.target] + [0.0])
        weights = by_segment[self.segments]
        weights[0] = 0.0  # nothing predicts the first token of a sequence
        return weights


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


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: str) -> str:
    """Return the prompt as the student reads it: as written, or as a user's turn of its chat template.

    Raises:
        UserError: `chat` is asked of a tokenizer that has no chat template.
    """
    if prompt_format == "plain":
        return prompt
    if not tokenizer.chat_template:
        raise UserError(
            "student.prompt_format: found 'chat', but the student's tokenizer has no chat template; use plain"
        )
    turn = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def tokenize_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prompt_format: str) -> Any:
    """Tokenise texts with offsets; a chat template brings its special tokens itself.

    Raises:
        UserError: The tokenizer cannot say which characters a token came from.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    return tokenizer(
        list(texts),
        return_offsets_mapping=True,
        add_special_tokens=prompt_format == "plain",
        return_attention_mask=False,
    )


def tokenize(
    tokenizer: PreTrainedTokenizerBase, views: Sequence[RenderedView], prompt_format: str = "plain"
) -> list[TokenizedView]:
    """Tokenise rendered views, each as one text.

    A token belongs to the segment that holds its first non-space character, so a token that a merge made across
    a seam is placed by what it says. Tokenising the pieces apart would give other tokens than inference sees.

    Raises:
        UserError: No fast tokenizer, no chat template where one is needed, or no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the student's tokenizer has no end-of-sequence token: a student trained without one never stops"
        )
    if not views:  # of records that no view selects; a tokenizer refuses to be given nothing
        return []
    prompts = [prompt_text(tokenizer, view.prompt, prompt_format) for view in views]
    texts = [
        prompt + "".join(segment.text for segment in view.target) for prompt, view in zip(prompts, views, strict=True)
    ]
    batch = tokenize_text(tokenizer, texts, prompt_format)
    tokenized = []
    for index, (prompt, text, view) in enumerate(zip(prompts, texts, views, strict=True)):
        ids = batch["input_ids"][index]
        offsets = np.asarray(batch["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)
        if ids and ids[-1] == tokenizer.eos_token_id:  # tokenizers that close every text themselves
            ids, offsets = ids[:-1], offsets[:-1]
        segments = _segments(text, len(prompt), view, offsets)
        soft = _soft(tokenizer, ids, segments, len(prompt), view, offsets)
        scored = [number for number, segment in enumerate(view.target) if segment.weight]
        closing = scored[-1] if scored else len(view.target) - 1
        fault = None
        try:
            ids, segments, soft = _rearranged(tokenizer, ids, segments, soft, view)
        except Unusable as unusable:
            fault = unusable.reason
        tokenized.append(
            TokenizedView(
                np.asarray([*ids, tokenizer.eos_token_id], dtype=np.int64),
                np.append(segments, closing),
                view,
                [*soft, None],
                fault,
            )
        )
    return tokenized


def _soft(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    segments: np.ndarray,
    prompt_length: int,
    view: RenderedView,
    offsets: np.ndarray,
) -> list[SoftTarget | None]:
    """Return what each token is to be, by the teacher's tokens of the segments that have some."""
    soft: list[SoftTarget | None] = [None] * len(ids)
    begin = prompt_length
    for number, segment in enumerate(view.target):
        if segment.teacher:
            first, end = np.searchsorted(segments, [number, number + 1])
            spans = [(int(start), int(stop)) for start, stop in offsets[first:end] - begin]
            soft[first:end] = align(spans, ids[first:end], segment.teacher, segment.text, single_tokens(tokenizer))
        begin += len(segment.text)
    return soft


def _rearranged(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    segments: np.ndarray,
    soft: list[SoftTarget | None],
    view: RenderedView,
) -> tuple[Sequence[int], np.ndarray, list[SoftTarget | None]]:
    """Apply the transforms whose unit is the token; a text that is shuffled and tokenised again has other tokens."""
    for number, segment in enumerate(view.target):
        if segment.rearrange is not None:
            first, end = np.searchsorted(segments, [number, number + 1])
            changed = segment.rearrange(
                ids[first:end], lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
            )
            ids = [*ids[:first], *changed, *ids[end:]]
            segments = np.concatenate([segments[:first], np.full(len(changed), number), segments[end:]])
            soft = [*soft[:first], *[None] * len(changed), *soft[end:]]
    return ids, segments, soft


def _segments(text: str, prompt_length: int, view: RenderedView, offsets: np.ndarray) -> np.ndarray:
    """Return the segment of each token by the first non-space character in its span; -1 is the prompt."""
    is_space = np.fromiter((character.isspace() for character in text), dtype=bool, count=len(text))
    positions = np.arange(len(text))
    # next_word[i]: the first non-space position at or after i, len(text) where there is none
    next_word = np.minimum.accumulate(np.where(is_space, len(text), positions)[::-1])[::-1]
    next_word = np.append(next_word, len(text))
    starts, ends = offsets[:, 0], offsets[:, 1]
    first = next_word[starts]
    first = np.where(first < ends, first, starts)  # a token of space alone goes where it stands
    bounds = prompt_length + np.cumsum([0] + [len(segment.text) for segment in view.target])
    segments = np.searchsorted(bounds, first, side="right") - 1
    # Special tokens that open a text have the empty span (0, 0): they are the prompt's even if it is empty.
    segments[(starts == 0) & (ends == 0)] = _PROMPT
    return np.minimum(segments, len(view.target) - 1)


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
        weights[tokenized.segments != _PROMPT] *= np.asarray(key, dtype=float)
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
    encoded, _ = next(_encode(tokenizer, [views.show(index)], views.stage, prompt_format))
    return encoded


def _encode(
    tokenizer: PreTrainedTokenizerBase, shown: Sequence[Shown], stage: Stage, prompt_format: str
) -> Iterator[tuple[list[tuple[TokenizedView, EncodedSequence]], str | None]]:
    """Yield the sequences of each record; instead of them the reason why it is left out, where there is one."""
    names = list(stage.views)
    views = list(stage.views.values())
    paired = [index for index, view in enumerate(views) if view.token_weights == "key_steps"]
    tokenized = iter(tokenize(tokenizer, [view for one in shown for _, view in one.sequences], prompt_format))
    for one in shown:
        of_record = [(index, next(tokenized)) for index, _ in one.sequences]
        faults = [f"{names[index]}: {tokens.fault}" for index, tokens in of_record if tokens.fault]
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
    would drop its answer, and half a pair is not a pair. So is one that a transform cannot be applied to.

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
    views = StageViews(stage, rows)
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
        for index, (encoded, reason) in zip(batch, _encode(tokenizer, shown, stage, prompt_format), strict=True):
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
