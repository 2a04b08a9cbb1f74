"""Each row has a share of the budget, and the climb of a linear model ends at its end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from titer.threats.balls import size
from titer.threats.goals import HighestLoss
from titer.threats.rules import Box
from titer.training.row_budgets import RowClimb


def _logits(x):
    flat = x.flatten(1)
    return torch.stack([flat @ torch.linspace(-1.5, 2, flat.shape[1]), 0 * flat[:, 0]], 1)


@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_no_row_leaves_its_share(norm, shares, seed, free_threat):
    rng = torch.Generator().manual_seed(seed)
    threat = free_threat(norm, 3.0, goal=HighestLoss())
    x, shares = torch.randn((len(shares), 1, 3, 3), generator=rng), torch.tensor(shares)
    y = torch.zeros(len(x), dtype=torch.int64)
    found = RowClimb(steps=3, step=0.5)(_logits, x, y, threat, shares, rng=rng)
    length = size(norm, found, x, torch.tensor(1.0))
    assert bool((length <= 3.0 * shares * (1 + 1e-4) + 1e-5).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_finds_the_farthest_point_of_each_share(norm, free_threat):
    threat, shares = free_threat(norm, 2.0, goal=HighestLoss()), torch.tensor([0.1, 0.5, 1.0])
    x, y = torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    found = RowClimb(steps=20, step=0.25)(_logits, x, y, threat, shares, rng=torch.Generator())
    weights = torch.linspace(-1.5, 2, 4)
    way = weights.sign() if norm == "linf" else weights / weights.norm()
    expected = -2.0 * shares.unsqueeze(1) * way
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-3, atol=0.03 * float(expected.abs().max()))


def test_the_rules_of_the_domain_hold(image_threat):
    threat = image_threat("linf", 50.0)
    x, y = torch.full((2, 1, 8, 8), 20.0), torch.zeros(2, dtype=torch.int64)
    found = RowClimb(steps=3, step=0.5)(_logits, x, y, threat, torch.ones(2), rng=torch.Generator())
    assert bool(Box(low=0.0, high=255.0).contains(found, x).all())
