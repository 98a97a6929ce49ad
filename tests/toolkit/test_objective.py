"""The loss on plain tensors against sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from toolkit.objective import denominators, mean_counts, soft_cross_entropy, sum_type, weighted_loss

LOSSES = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
WEIGHTS = torch.tensor([[0.0, 1.0, 1.0], [-0.5, 0.0, 2.0]])
COUNTS = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
VIEWS = torch.tensor([[0, 0, 0], [1, 1, 1]])


def test_by_view_each_view_is_divided_by_its_own_count() -> None:
    d = denominators(COUNTS, VIEWS, 2, "view")
    assert d.tolist() == [2.0, 3.0]
    assert weighted_loss(LOSSES, WEIGHTS, VIEWS, d).tolist() == pytest.approx([(2 + 4) / 2, (-4 + 64) / 3])


def test_by_token_all_views_share_one_denominator() -> None:
    d = denominators(COUNTS, VIEWS, 2, "token")
    assert d.tolist() == [5.0, 5.0]
    assert weighted_loss(LOSSES, WEIGHTS, VIEWS, d).sum().item() == pytest.approx((2 + 4 - 4 + 64) / 5)


def test_a_view_that_does_not_occur_adds_nothing() -> None:
    d = denominators(COUNTS[:1], VIEWS[:1], 3, "view")
    assert weighted_loss(LOSSES[:1], WEIGHTS[:1], VIEWS[:1], d).tolist() == [3.0, 0.0, 0.0]


def test_padding_of_a_view_that_the_step_lacks_is_no_division_by_zero() -> None:
    """A rectangle is filled up with view 0, and a step may hold nothing but records of view 1."""
    views = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    counts = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    losses = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]], requires_grad=True)
    d = denominators(counts, views, 2, "view")
    assert d.tolist() == [0.0, 4.0]
    terms = weighted_loss(losses, counts, views, d)
    assert terms.tolist() == [0.0, (2 + 4 + 8 + 32) / 4]
    terms.sum().backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [[0.0, 0.25, 0.25, 0.25], [0.0, 0.25, 0.0, 0.0]]


def test_small_losses_are_not_lost_behind_a_large_one() -> None:
    """2**24 is the first whole number whose successor float32 does not have: one added to it eight times is eight."""
    losses = torch.tensor([[2.0**24] + [1.0] * 8])
    views = torch.zeros(1, 9, dtype=torch.long)
    d = torch.ones(1, dtype=torch.float64)
    assert weighted_loss(losses, torch.ones(1, 9), views, d).tolist() == [2.0**24 + 8]


def test_counts_are_added_up_exactly_whatever_their_number() -> None:
    counts = torch.tensor([[2.0**24] + [1.0] * 8])
    for by in ("token", "view"):
        assert denominators(counts, torch.zeros(1, 9), 1, by).tolist() == [2.0**24 + 8]


def test_a_loss_has_the_precision_of_the_losses_and_its_denominators_are_exact() -> None:
    d = denominators(COUNTS, VIEWS, 2, "view")
    assert d.dtype == torch.float64
    for precision in (torch.float32, torch.bfloat16):
        assert weighted_loss(LOSSES.to(precision), WEIGHTS, VIEWS, d).dtype == precision


def test_sums_are_as_exact_as_the_device_allows() -> None:
    assert [sum_type(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [
        torch.float64,
        torch.float64,
        torch.float32,
    ]


def test_a_row_of_the_dataset_counts_the_mean_of_what_an_epoch_has() -> None:
    """Two rows that every epoch has, and one that every second has; views 0 and 1 of three, in a packed row both."""
    rows = [
        (np.array([0.0, 1.0, 1.0], dtype=np.float32), np.array([0, 0, 0])),
        (np.array([1.0, 2.0, 4.0]), np.array([1, 0, 1], dtype=np.int32)),
        (np.array([8.0]), np.array([1])),
    ]
    means = mean_counts(iter(rows), iter([1.0, 1.0, 0.5]), 3)
    assert means.dtype == torch.float64
    assert means.tolist() == pytest.approx([(1 + 1 + 2) / 2.5, (1 + 4 + 8 / 2) / 2.5, 0.0])


def test_the_mean_of_many_rows_is_exact() -> None:
    rows = [(np.array([2.0**24], dtype=np.float32), np.array([0]))] + [
        (np.array([1.0], dtype=np.float32), np.array([0]))
    ] * 8
    assert mean_counts(rows, [1.0] * 9, 1).tolist() == [(2.0**24 + 8) / 9]


def test_a_process_may_add_to_the_denominator_of_one_view_without_touching_another_s() -> None:
    d = denominators(COUNTS, VIEWS, 2, "token")
    d[0] += 1
    assert d.tolist() == [6.0, 5.0]


def test_a_denominator_of_one_or_less_is_what_it_is() -> None:
    d = torch.tensor([1.0, 0.25], dtype=torch.float64)
    assert weighted_loss(LOSSES, WEIGHTS, VIEWS, d).tolist() == [2 + 4, (-4 + 64) / 0.25]


def test_micro_batches_add_up_to_the_batch() -> None:
    d = denominators(COUNTS, VIEWS, 2, "view")
    halves = [denominators(COUNTS[i : i + 1], VIEWS[i : i + 1], 2, "view") for i in range(2)]
    assert torch.equal(halves[0] + halves[1], d)
    parts = sum(weighted_loss(LOSSES[i : i + 1], WEIGHTS[i : i + 1], VIEWS[i : i + 1], d) for i in range(2))
    assert torch.allclose(parts, weighted_loss(LOSSES, WEIGHTS, VIEWS, d))


def test_views_may_share_a_row() -> None:
    views = torch.tensor([[0, 1, 1], [1, 0, 0]])
    d = denominators(COUNTS, views, 2, "view")
    terms = weighted_loss(LOSSES, WEIGHTS, views, d)
    assert d.tolist() == [2.0, 3.0]
    assert terms.tolist() == pytest.approx([(0 + 0 + 64) / 2, (2 + 4 - 4) / 3])


def test_a_row_counts_on_average_what_all_rows_count_divided_by_their_number() -> None:
    rows = [
        (np.array([0.0, 1.0, 1.0]), np.array([0, 0, 0])),
        (np.array([1.0, 0.5]), np.array([2, 0])),  # packed: two views in one row
        (np.array([0.0]), np.array([1])),
    ]
    assert mean_counts(iter(rows), [1.0, 1.0, 1.0], 3).tolist() == pytest.approx([2.5 / 3, 0.0, 1 / 3])


def test_a_row_that_few_epochs_have_counts_as_often_as_they_have_it() -> None:
    rows = [(np.array([4.0]), np.array([0])), (np.array([8.0]), np.array([0])), (np.array([3.0]), np.array([1]))]
    assert mean_counts(rows, [0.5, 0.5, 1.0], 2).tolist() == pytest.approx([(2 + 4) / 2, 3 / 2])


LOGITS = torch.tensor([[[0.0, math.log(2), math.log(5)], [math.log(3), 0.0, math.log(4)]]])  # q is n/8


def test_a_soft_row_is_the_sum_of_its_probabilities_times_the_surprise() -> None:
    ids = torch.tensor([[[2, 0], [1, 2]]])
    probs = torch.tensor([[[0.5, 0.25], [1.0, 0.0]]])
    expected = [0.5 * math.log(8 / 5) + 0.25 * math.log(8 / 1), math.log(8 / 1)]
    assert soft_cross_entropy(LOGITS, ids, probs)[0].tolist() == pytest.approx(expected)


def test_one_token_of_probability_one_is_the_plain_cross_entropy() -> None:
    logits = torch.randn(3, 7, 50, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(1))
    ids = torch.stack([labels, torch.zeros_like(labels)], dim=-1)
    probs = torch.tensor([1.0, 0.0]).expand(3, 7, 2)
    plain = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    assert torch.allclose(soft_cross_entropy(logits, ids, probs), plain, atol=1e-6, rtol=1e-6)


def test_the_gradient_is_that_of_the_divergence_from_the_teacher() -> None:
    p = torch.tensor([0.5, 0.3, 0.2])
    of_soft, of_divergence = (LOGITS[:, :1].clone().requires_grad_() for _ in range(2))
    soft_cross_entropy(of_soft, torch.tensor([[[1, 0, 2]]]), p[[1, 0, 2]].expand(1, 1, 3)).sum().backward()
    functional.kl_div(of_divergence.log_softmax(-1), p.expand(1, 1, 3), reduction="sum").backward()
    assert torch.allclose(of_soft.grad, of_divergence.grad, atol=1e-6)  # type: ignore[arg-type]


def test_an_impossible_token_that_fills_a_row_costs_nothing() -> None:
    logits = torch.tensor([[[-math.inf, 0.0, 0.0]]], requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor([[[1, 0]]]), torch.tensor([[[1.0, 0.0]]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
