"""Rules of the domain, and threats that hold several of them at once."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box, MutableMask, ordered, whole_numbers


def test_a_box_clips_and_is_strict():
    box = Box(low=0.0, high=255.0)
    x = torch.tensor([[10.0, 20.0], [0.0, 255.0]])
    assert box.project(torch.tensor([[-3.0, 300.0], [0.5, 254.0]]), x).tolist() == [[0.0, 255.0], [0.5, 254.0]]
    assert box.contains(torch.tensor([[0.0, 255.0], [0.0, 255.0001]]), x).tolist() == [True, False]
    assert box.contains(torch.tensor([[-1e-4, 2.0], [float("nan"), 1.0]]), x).tolist() == [False, False]


def test_a_box_may_differ_by_feature():
    box = Box(low=torch.tensor([0.0, -5.0]), high=torch.tensor([1.0, float("inf")]))
    assert box.project(torch.tensor([[2.0, -9.0]]), torch.zeros(1, 2)).tolist() == [[1.0, -5.0]]
    assert box.describe() == "each value in [-5, inf], each feature in its own limits"
    assert Box(low=0.0, high=255.0).describe() == "each value in [0, 255]"


def test_a_mask_puts_back_what_lies_outside():
    mask = MutableMask(mask=torch.tensor([True, False]))
    x = torch.tensor([[1.0, 2.0]])
    moved = mask.project(torch.tensor([[5.0, 6.0]]), x)
    assert moved.tolist() == [[5.0, 2.0]]
    assert mask.contains(moved, x).tolist() == [True]
    assert mask.contains(torch.tensor([[1.0, 2.00001]]), x).tolist() == [False]


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3))
def test_ordered_gives_the_nearest_ordered_row(row):
    rule = ordered((0,), (2,), "ordered")
    fixed = rule.project(torch.tensor([row]), torch.zeros(1, 3))
    assert bool(rule.contains(fixed, fixed))
    start = np.array([0.0, row[1], 1.0])
    best = minimize(
        lambda z: ((z - np.array(row)) ** 2).sum(),
        start,
        jac=lambda z: 2 * (z - np.array(row)),
        constraints={"type": "ineq", "fun": lambda z: z[2] - z[0], "jac": lambda _z: np.array([-1.0, 0.0, 1.0])},
        method="SLSQP",
    )
    np.testing.assert_allclose(fixed[0].numpy(), best.x, atol=1e-3)


def test_ordered_refuses_inverted_pairs():
    rule = ordered((0,), (1,), "ordered")
    assert rule.contains(torch.tensor([[1.0, 1.0], [1.1, 1.0]]), torch.zeros(2, 2)).tolist() == [True, False]


def test_whole_numbers_are_rounded():
    rule = whole_numbers()
    assert rule.project(torch.tensor([[0.6, 2.2]]), torch.zeros(1, 2)).tolist() == [[1.0, 2.0]]
    assert rule.contains(torch.tensor([[1.0, 2.0], [1.0, 2.001]]), torch.zeros(2, 2)).tolist() == [True, False]


@given(st.sampled_from(["l1", "l2", "linf"]), st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 5.0]))
def test_a_threat_with_every_kind_of_rule_ends_inside(norm, seed, eps):
    # Cytology's rules: non-negative, worst at least mean; 30 measures of very different size.
    rng = torch.Generator().manual_seed(seed)
    scale = 10 ** (3 * torch.rand(30, generator=rng) - 2)
    x = 5 * scale * torch.rand((20, 30), generator=rng)
    x[:, 20:] = torch.maximum(x[:, :10], x[:, 20:])
    rules = (Box(low=0.0, high=float("inf")), ordered(tuple(range(10)), tuple(range(20, 30)), "worst >= mean"))
    threat = Threat(family=norm, budget=ball(norm, eps, scale, "sd"), domain=rules, goal=AnyError())
    found = threat.project(x + 3 * eps * scale * torch.randn(x.shape, generator=rng), x)
    assert bool(threat.contains(found, x).all())
    assert float(((found - x) / scale).abs().amax(1).min()) > 0.05 * eps / 30


@pytest.mark.parametrize(("norm", "eps"), [*itertools.product(["l1", "l2", "linf"], [0.6, 1.5, 4.2])])
def test_whole_numbers_hold_inside_a_ball_that_is_no_whole_number(norm, eps):
    # Rounding leaves a ball of 1.5; what is put back for that would pass for robustness.
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 50, (40, 6), generator=rng).float()
    budget = ball(norm, eps, torch.tensor(1.0), "count")
    threat = Threat(family=norm, budget=budget, domain=(whole_numbers(),), goal=AnyError())
    found = threat.project(x + 5 * torch.randn(x.shape, generator=rng), x)
    assert bool(threat.contains(found, x).all())
    if eps > (1 if norm == "linf" else 2):
        assert float((found != x).any(1).float().mean()) > 0.9


def test_a_threat_names_itself():
    def named(unit):
        return Threat(family="linf", budget=ball("linf", 8, torch.tensor(1.0), unit), domain=(), goal=AnyError()).name

    assert (named("/255"), named("sd")) == ("linf 8/255", "linf 8 sd")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threat_contains_finite_rows_only(value, table_threat, free_threat):
    x = torch.full((2, 6), 5.0)
    broken = x.clone()
    broken[1, 2] = value
    for threat in (table_threat("linf", 1.0), free_threat("l2", 1.0)):
        assert threat.contains(broken, x).tolist() == [True, False]
        assert threat.allowed(broken, x).tolist() == [True, False]


def test_allowed_leaves_the_budget_open(image_threat):
    threat, x = image_threat("linf", 1.0), torch.full((1, 1, 8, 8), 100.0)
    assert threat.allowed(x + 50, x).tolist() == [True]
    assert threat.contains(x + 50, x).tolist() == [False]
