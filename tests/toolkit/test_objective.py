"""The loss on plain tensors against sums written out by hand."""

from __future__ import annotations

import pytest
import torch

from toolkit.objective import denominators, weighted_loss

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
