"""How weighted token losses become one number. Plain tensors in, a scalar out; no trainer, no model.

What a view's losses are divided by (D_v, once for the whole optimizer step) is one of two things:

- by token, or where there is one view: what the step itself counts, `D = sum of count_t`: plain TRL's mean.
- by view or example, with several views: what a step of its size counts on average, `D_v = rows of the step * C_v / N`
  for a dataset of N rows in which view v counts C_v. A step may lack a view or have more of it than its share. Divided
  by its own count, the view would have its whole weight where it occurs and none where it does not: less than its
  coefficient says, in the mean (0.54 of 1 for a rare view at batch 2). So divided, the mean of the steps' losses is
  the loss of the dataset, `sum over v of  sum of w_t * CE_t / C_v`, whatever the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
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
        Shape (V,), float64 where the device has it: sums of up to millions of ones must stay exact.
    """
    sums = torch.zeros(number_of_views, dtype=sum_type(counts.device), device=counts.device)
    sums.index_add_(0, views.reshape(-1).long(), counts.reshape(-1).to(sums.dtype))
    return sums.sum().expand_as(sums).clone() if by == "token" else sums


def mean_counts(rows: Iterable[tuple[np.ndarray, np.ndarray]], shares: Iterable[float], number_of_views: int) -> Tensor:
    """Return what a row of the dataset counts for each view on average: `C_v / N`.

    Args:
        rows: Counts and view indices of the tokens of each row.
        shares: How often an epoch has each row, on average.
        number_of_views: V.

    Returns:
        Shape (V,), float64.
    """
    total = torch.zeros(number_of_views, dtype=torch.float64)
    drawn = 0.0
    for (counts, views), share in zip(rows, shares, strict=True):
        counted = torch.as_tensor(counts, dtype=torch.float64) * share
        total.index_add_(0, torch.as_tensor(views, dtype=torch.int64), counted)
        drawn += share
    return total / drawn


def soft_cross_entropy(logits: Tensor, ids: Tensor, probs: Tensor) -> Tensor:
    """Return the cross-entropy of each token against the distribution that it is to have.

    Equation: `sum over k of  p_k * -log q_k`; its gradient is that of KL(p || q), which differs by a constant (Fu et
    al., arXiv 2301.12726). One id of probability 1 is the plain cross-entropy.

    Args:
        logits: Shape (B, T, vocabulary), float32.
        ids: Ids k of each token, shape (B, T, K).
        probs: Their probabilities p, not negative, shape (B, T, K); a row need not add up to 1.

    Returns:
        Shape (B, T), differentiable.
    """
    surprise = logits.logsumexp(dim=-1, keepdim=True) - logits.gather(-1, ids)
    # Ids that only fill a row may be impossible to the model, and 0 times infinity is not 0.
    return torch.where(probs > 0, probs * surprise, torch.zeros_like(surprise)).sum(dim=-1)


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
        Shape (V,), in the precision of `losses`; added up in float64, since a running sum of thousands of float32
        terms loses the last digits that a comparison with plain training is about.
    """
    # A view without tokens in the step has the denominator 0; any other value gives its empty sum as 0.
    safe = torch.where(denominators == 0, torch.ones_like(denominators), denominators)
    scaled = losses.to(safe.dtype) * (weights.to(safe.dtype) / safe[views.long()])
    return torch.zeros_like(safe).index_add(0, views.reshape(-1).long(), scaled.reshape(-1)).to(losses.dtype)


def sum_type(device: torch.device) -> torch.dtype:
    """Return the type that sums are taken in on a device."""
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
