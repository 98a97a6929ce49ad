"""Contrastive decoding of two prompts: SCOTT's teacher (arXiv 2305.01879).

    score(t) = log p(t | prompt) - beta * log p(t | contrast)

Greedy; both streams are fed the chosen token. There is no plausibility mask, as there is none in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.decoding import Decoding, Generation, decode_ids, end_token_ids
from toolkit.errors import UserError
from toolkit.tokenizing import prompt_ids

if TYPE_CHECKING:
    import torch


def contrast_scores(factual: torch.Tensor, contrast: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the score of every token from the logits of both streams, shapes (..., vocabulary)."""
    return factual.log_softmax(-1) - beta * contrast.log_softmax(-1)


def decode_contrastively(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    decoding: Decoding,
    *,
    beta: float,
    stop_at_newline: bool = False,
    batch_size: int,
) -> list[Generation]:
    """Complete prompts against contrast prompts.

    A completion ends where the chosen token, or the one that the prompt alone makes most likely, is an end of turn or
    (if asked) holds a line break; that token is not part of its text.

    Args:
        model: Causal language model.
        tokenizer: Its tokenizer.
        pairs: Rendered (prompt, contrast), none of them empty.
        decoding: Length and stop strings; greedy.
        beta: Weight of the contrast, >= 0.
        stop_at_newline: End at a line break.
        batch_size: Pairs decoded at once.

    Raises:
        UserError: The model names no token that ends a turn.
    """
    ends = end_token_ids(model, tokenizer)
    if not ends:
        raise UserError("contrastive decoding needs a model that names an end-of-turn token, and this one names none")
    stops = [*ends, *(_newline_ids(tokenizer) if stop_at_newline else ())]
    special = decoding.add_special_tokens
    completions: list[Generation] = []
    for start in range(0, len(pairs), batch_size):
        streams = [prompt for pair in pairs[start : start + batch_size] for prompt in pair]
        encoded = prompt_ids(tokenizer, streams, special)
        choose = _Contrast(beta, stops, ends[0])
        # Factual streams stand at even places; both of a pair say the same.
        completions += decode_ids(model, tokenizer, encoded, decoding, choose)[::2]
    return completions


def _newline_ids(tokenizer: Any) -> Iterator[int]:
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return (token for token, text in enumerate(texts) if "\n" in text)


class _Contrast:
    """Logits processor that leaves each pair of rows (factual, contrast) the one token with the best score."""

    def __init__(self, beta: float, stops: Sequence[int], end: int) -> None:
        self.beta = beta
        self.stops = list(stops)
        self.end = end

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) with all but the chosen token of each row at minus infinity."""
        import torch

        factual, contrast = logits[::2], logits[1::2]
        chosen = contrast_scores(factual, contrast, self.beta).argmax(-1)
        stops = torch.tensor(self.stops, device=logits.device)
        stopped = torch.isin(chosen, stops) | torch.isin(factual.argmax(-1), stops)
        chosen = torch.where(stopped, self.end, chosen).repeat_interleave(2)
        return torch.full_like(logits, -torch.inf).scatter(-1, chosen[:, None], 0.0)
