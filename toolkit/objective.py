"""How weighted token losses become one number. Plain tensors in, a scalar out; no trainer, no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def denominators(counts: Tensor, views: Tensor, number_of_views: int, by: str) -> Tensor:
    """Return what each view's losses are divided by, as this batch alone knows it.

    The denominator of an optimizer step is the sum of this over its micro-batches and processes.

    Args:
        counts: What each token counts for, shape (B, T).
        views: View index of each token, shape (B, T).
        number_of_views: V.
        by: `token` (one denominator for all views) or `view` / `example` (one for each).

    Returns:
        Shape (V,), float64: sums of up to millions of ones must stay exact.
    """
    sums = torch.zeros(number_of_views, dtype=torch.float64, device=counts.device)
    sums.index_add_(0, views.reshape(-1).long(), counts.reshape(-1).double())
    return sums.sum().expand_as(sums).clone() if by == "token" else sums


def weighted_loss(losses: Tensor, weights: Tensor, views: Tensor, denominators: Tensor) -> Tensor:
    """Return each view's share of the loss; their sum is the loss.

    Equation: `L_v = sum over tokens t of view v of  w_t * CE_t / D_v` (EDIT, SCOTT, DSS and every other
    objective of this toolkit are choices of w and D).

    Args:
        losses: Cross-entropy of each token, shape (B, T); differentiable.
        weights: Signed weights, shape (B, T).
        views: View index of each token, shape (B, T).
        denominators: Of the whole optimizer step, shape (V,). A view that does not occur in it adds nothing.

    Returns:
        Shape (V,), in the precision of `losses`.
    """
    # A view without tokens in the step has the denominator 0; any other value gives its empty sum as 0.
    safe = torch.where(denominators == 0, torch.ones_like(denominators), denominators).to(losses.dtype)
    scaled = losses * (weights.to(losses.dtype) / safe[views.long()])
    return torch.zeros_like(safe).index_add(0, views.reshape(-1).long(), scaled.reshape(-1))
