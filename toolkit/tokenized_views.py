"""A rendered view as tokens: prompt, target and end of sequence, each token with the segment it belongs to.

What tokens weigh is `encoding`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import UserError
from toolkit.soft_targets import SoftTarget, align, single_tokens
from toolkit.tokenizing import prompt_text, tokenize_text
from toolkit.transforms import Unusable
from toolkit.views import RenderedView

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT = -1  # the segment that a prompt's tokens belong to


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
        return [int(token) for token in self.input_ids[self.segments != PROMPT]]

    def segment_weights(self) -> np.ndarray:
        """Weight of each token's segment, 0 in the prompt, shape (T,)."""
        by_segment = np.array([segment.weight for segment in self.view.target] + [0.0])
        weights = by_segment[self.segments]
        weights[0] = 0.0  # nothing predicts the first token of a sequence
        return weights


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
    encoded = tokenize_text(tokenizer, texts, prompt_format)
    tokenized = []
    for prompt, text, view, (found, offsets) in zip(prompts, texts, views, encoded, strict=True):
        ids: Sequence[int] = found
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
    segments[(starts == 0) & (ends == 0)] = PROMPT
    return np.minimum(segments, len(view.target) - 1)
