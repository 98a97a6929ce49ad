"""How likely a student finds given texts: the log-likelihood of each option of a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.tokenized_views import tokenize
from toolkit.views import RenderedView


def log_likelihoods(
    model: Any, tokenizer: Any, views: Sequence[RenderedView], prompt_format: str, batch_size: int
) -> list[tuple[float, int]]:
    """Return the summed log-probability and the number of the scored tokens of each rendered view.

    Each is tokenised once, prompt and target together, as in training. The end of sequence does not count: an option
    that more was to follow would be at a loss.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, fast.
        views: Prompt and target; tokens of segments with weight 0 are read and not scored.
        prompt_format: `plain` or `chat`.
        batch_size: Sequences in flight at once.
    """
    import torch

    tokenized = tokenize(tokenizer, views, prompt_format)
    scores: list[tuple[float, int]] = []
    for start in range(0, len(tokenized), batch_size):
        batch = tokenized[start : start + batch_size]
        lengths = [len(one.input_ids) - 1 for one in batch]
        # Padded on the right: nothing that is scored sees it.
        ids = torch.zeros(len(batch), max(lengths), dtype=torch.long)
        scored = torch.zeros(len(batch), max(lengths), dtype=torch.bool)
        for row, (one, length) in enumerate(zip(batch, lengths, strict=True)):
            ids[row, :length] = torch.from_numpy(one.input_ids[:length])
            scored[row, :length] = torch.from_numpy(np.asarray(one.segment_weights()[:length] != 0))
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits
        chosen = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None].to(logits.device))[..., 0]
        kept = scored[:, 1:].to(chosen.device)
        sums = (chosen * kept).sum(-1).tolist()
        scores += zip(sums, kept.sum(-1).tolist(), strict=True)
    return scores
