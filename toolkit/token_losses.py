"""Cross-entropy of the scored tokens of a batch, by the head that suits the device. Knows no weights and no trainer.

On CPU, and wherever soft targets need whole distributions, the hidden states of scored positions alone are projected:
the model runs as it always does, and the input of its output embeddings is cut down on the way. So what a model does
to its logits behind the projection (Gemma's soft cap, Cohere's and Granite's scale) applies as ever, and so do an
adapter on the head, gradient checkpointing and the wrappers of several processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from toolkit.objective import soft_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


def token_losses(
    model: torch.nn.Module,
    inputs: dict[str, Any],
    labels: Tensor,
    head: str,
    soft_ids: Tensor | None = None,
    soft_probs: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of every scored token, 0 elsewhere.

    Args:
        model: Causal language model; for the fused head, one that `add_fused_lm_head` has patched.
        inputs: Model inputs without labels.
        labels: Shape (B, T), -100 where nothing is to be projected.
        head: `fused` (TRL's, no logits) or `plain` (logits at the scored positions); soft targets need the latter.
        soft_ids: What scored tokens are to be in place of their labels, shape (B, T, K).
        soft_probs: Probabilities of these ids, shape (B, T, K).

    Returns:
        Shape (B, T - 1), float32, differentiable: entry t is the loss of token t + 1.
    """
    if head == "fused":
        # named so that the wrapper's positional handling (DDP, FSDP) stays out of the way
        return -model(**inputs, labels=labels, fused_lm_head=True).log_probs
    targets = labels[:, 1:]
    scored = targets != -100
    # The prediction of token t + 1 comes from position t; nothing comes from the last one.
    logits = _logits_at(model, inputs, functional.pad(scored, (0, 1))).float()
    if soft_ids is not None and soft_probs is not None:
        losses = soft_cross_entropy(logits, soft_ids[:, 1:][scored], soft_probs[:, 1:][scored])
    else:
        losses = functional.cross_entropy(logits, targets[scored], reduction="none")
    # Scattering keeps a batch in which nothing is scored connected to the model: its loss is a 0 that has a gradient.
    return torch.zeros(targets.shape, dtype=losses.dtype, device=losses.device).masked_scatter(scored, losses)


def _logits_at(model: torch.nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
    """Return the logits at the positions that a mask of shape (B, T) picks, shape (N, vocabulary)."""
    with _projected(_unwrapped(model).get_output_embeddings(), positions):
        logits: Tensor = model(**inputs, use_cache=False).logits
    # A model whose head is no module of its own has projected all positions.
    return logits[positions] if logits.shape[:2] == positions.shape else logits.reshape(-1, logits.shape[-1])


@contextmanager
def _projected(head: torch.nn.Module | None, positions: Tensor) -> Iterator[None]:
    """Give a head the hidden states of some positions alone, as one row of shape (1, N, hidden)."""
    if head is None:
        yield
        return

    def picked(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden, *others = args
        return (hidden[positions].unsqueeze(0), *others) if hidden.shape[:2] == positions.shape else None

    hook = head.register_forward_pre_hook(picked)
    try:
        yield
    finally:
        hook.remove()


def _unwrapped(model: torch.nn.Module) -> Any:
    """Return the model below the wrappers of several processes and of adapters, whose layers are in its places."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner
