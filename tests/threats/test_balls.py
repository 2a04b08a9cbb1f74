"""Balls: projections are exact, membership is strict, steps are the steepest."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

from titer.core.errors import SpecError
from titer.core.noise import Noise
from titer.threats.balls import ball, size
from titer.threats.planes import step_to_plane

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
SIZES, ANY_NORM = st.integers(1, 12), st.sampled_from(NORMS)


@st.composite
def cases(draw, norm=ANY_NORM, frozen=True):
    """Draw a ball with clean rows and rows anywhere; per-feature scales may hold zeros."""
    features, rows = draw(SIZES), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scale = torch.tensor(draw(st.sampled_from([0.5, 1.0, 255.0])))
    if draw(st.booleans()):
        scale = scale * (0.1 + torch.rand(features, generator=rng))
        if frozen:
            scale = scale * (torch.rand(features, generator=rng) > 0.3)
    eps = draw(st.sampled_from([0.01, 0.3, 1.0, 7.0]))
    x = 10 * scale.max() * torch.randn((rows, features), generator=rng)
    delta = torch.randn((rows, features), generator=rng) * eps * draw(st.sampled_from([0.05, 0.7, 3.0, 40.0]))
    return ball(draw(norm), eps, scale, "unit"), x, x + delta * scale + (scale == 0) * delta


def _in_units(budget, x_adv, x):
    """The change in units in float64, with the features of scale 0 dropped."""
    scale = budget.scale.double().expand(x.shape[1:])
    return ((x_adv.double() - x.double()) / scale)[:, scale > 0]


@given(cases())
def test_projection_lands_inside_and_stays(case):
    budget, x, x_adv = case
    once = budget.project(x_adv, x)
    assert bool(budget.contains(once, x).all())
    torch.testing.assert_close(budget.project(once, x), once, rtol=1e-5, atol=1e-5)


@given(cases())
def test_projection_leaves_what_is_inside(case):
    budget, x, x_adv = case
    inside = budget.at(budget.eps * 0.999).project(x_adv, x)
    torch.testing.assert_close(budget.project(inside, x), inside, rtol=1e-6, atol=1e-6 * float(x.abs().max()))


@given(cases(frozen=False), st.integers(0, 10**6))
def test_projection_is_the_nearest_point(case, seed):
    # Of a convex set, p is nearest to z if and only if (z - p) . (q - p) <= 0 for every q of the set.
    budget, x, x_adv = case
    p, z = (_in_units(budget, value, x) for value in (budget.project(x_adv, x), x_adv))
    others = _in_units(budget, budget.sample(x, Noise(seed, torch.arange(len(x)))), x)
    corner = torch.zeros_like(p).scatter(1, (z - p).abs().argmax(1, keepdim=True), 1.0) * (z - p).sign() * budget.eps
    tolerance = 1e-3 * (z - p).norm(dim=1) * budget.eps * math.sqrt(p.shape[1]) + 1e-6
    for q in (others, corner, torch.zeros_like(p)):
        assert bool((((z - p) * (q - p)).sum(1) <= tolerance).all())


@given(cases(norm=st.just("l1")))
def test_l1_projection_solves_its_dual(case):
    # The nearest point of the L1 ball is a soft-thresholding; the threshold is the root of sum (|z| - t)+ = eps.
    budget, x, x_adv = case
    for found, wanted in zip(_in_units(budget, budget.project(x_adv, x), x), _in_units(budget, x_adv, x), strict=True):
        z = wanted.abs().numpy()
        level = 0.0
        if z.sum() > budget.eps:
            level = brentq(lambda t, z=z: np.clip(z - t, 0, None).sum() - budget.eps, 0, z.max(), xtol=1e-12)
        expected = wanted.sign().numpy() * np.clip(z - level, 0, None)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4 * max(1.0, budget.eps))


@given(cases())
def test_projection_moves_towards_the_clean_row(case):
    budget, x, x_adv = case
    before, after = (x_adv - x).abs(), (budget.project(x_adv, x) - x).abs()
    assert bool((after <= before * (1 + 1e-5) + 1e-6 * x.abs()).all())
    assert budget.shrinks


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [torch.tensor(1.0), torch.tensor([1.0, 0.5, 2.0, 4.0])])
def test_contains_ends_at_eps(norm, scale):
    budget = ball(norm, 2.0, scale, "unit")
    x = torch.tensor([[1.0, -3.0, 0.5, 2.0]])
    direction = torch.tensor([[0.3, -1.0, 0.2, 0.9]])
    direction = direction / size(norm, direction * scale, torch.zeros_like(x), scale)
    verdicts = [bool(budget.contains(x + direction * scale * 2.0 * factor, x)) for factor in (0.999, 1.0, 1.001)]
    assert verdicts == [True, True, False]


@pytest.mark.parametrize("norm", NORMS)
def test_a_feature_of_scale_zero_may_not_change(norm):
    budget = ball(norm, 1.0, torch.tensor([1.0, 0.0]), "sd")
    x = torch.tensor([[5.0, 5.0]])
    assert not bool(budget.contains(torch.tensor([[5.0, 5.0001]]), x))
    assert budget.project(torch.tensor([[5.1, 9.0]]), x)[0, 1] == 5.0
    assert budget.sample(x, Noise(0, torch.arange(len(x))))[0, 1] == 5.0
    assert budget.ascend(x, torch.ones(1, 2), 1.0)[0, 1] == 5.0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("features", [1, 3])
def test_samples_are_uniform_in_the_ball(norm, features):
    # The share of a ball within a fraction r of its radius is r ** features.
    budget = ball(norm, 3.0, torch.tensor(2.0), "unit")
    x = torch.full((4000, features), 50.0)
    drawn = budget.sample(x, Noise(1, torch.arange(len(x))))
    assert bool(budget.contains(drawn, x).all())
    for r in (0.5, 0.8):
        share = float((size(norm, drawn, x, budget.scale) <= r * 3.0).float().mean())
        assert share == pytest.approx(r**features, abs=0.04)
    assert float((drawn - x).mean(0).abs().max()) < 0.3


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_of_no_rows_is_empty(norm):
    drawn = ball(norm, 1.0, torch.tensor(1.0), "unit").sample(torch.zeros(0, 4), Noise(0, torch.arange(0)))
    assert drawn.shape == (0, 4)


@given(cases(frozen=False), st.integers(0, 10**6), st.sampled_from([1e-25, 1e-12, 1.0, 1e25]))
def test_a_step_is_as_long_as_asked(case, seed, magnitude):
    budget, x, _ = case
    grad = magnitude * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    step = size(budget.norm, budget.ascend(torch.zeros_like(x), grad, 0.7), torch.zeros_like(x), budget.scale)
    torch.testing.assert_close(step, torch.full_like(step, 0.7), rtol=1e-4, atol=0)


@given(cases(frozen=False), st.integers(0, 10**6))
def test_a_step_is_the_steepest(case, seed):
    # No step of length 1 gains more than the dual norm of the gradient (in units); this one gains all of it.
    # Below 200 features the L1 step moves one value, which is the steepest of its norm too.
    budget, x, _ = case
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    gain = (budget.ascend(torch.zeros_like(x), grad, 1.0) * grad).sum(1)
    best = torch.linalg.vector_norm((grad * budget.scale).flatten(1), ord=DUAL[budget.norm], dim=1)
    torch.testing.assert_close(gain, best, rtol=1e-4, atol=1e-5)


def test_an_l1_step_on_an_image_spreads_over_a_hundredth():
    moved = ball("l1", 1.0, torch.tensor(1.0), "unit").ascend(torch.zeros(2, 1, 20, 20), torch.randn(2, 1, 20, 20), 1.0)
    assert (moved != 0).flatten(1).sum(1).tolist() == [4, 4]


def _smallest(norm, normal, gap):
    """Return the norm of the smallest d with normal . d = gap, by linear programming where there is no closed form."""
    if norm == "l2":
        return abs(gap) / np.linalg.norm(normal)
    n = len(normal)
    signed = np.concatenate([normal, -normal])  # d = p - m with p, m >= 0
    if norm == "l1":
        return linprog(np.ones(2 * n), A_eq=[signed], b_eq=[gap]).fun
    bound = np.hstack([np.eye(n), np.eye(n), -np.ones((n, 1))])  # p + m <= t
    solved = linprog(np.eye(2 * n + 1)[-1], A_ub=bound, b_ub=np.zeros(n), A_eq=[np.append(signed, 0)], b_eq=[gap])
    return solved.fun


@settings(max_examples=40)
@given(
    st.sampled_from(NORMS),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.sampled_from([-2.0, 1e-3, 5.0]),
    st.sampled_from([1e-20, 1.0]),
)
def test_the_step_to_a_plane_arrives_and_is_the_smallest(norm, features, seed, gap, slope):
    rng = torch.Generator().manual_seed(seed)
    normal, scale = torch.randn((1, features), generator=rng), 0.5 + torch.rand(features, generator=rng)
    step = step_to_plane(norm, slope * normal, torch.tensor([slope * gap]), scale)
    assert float((step * normal).sum()) == pytest.approx(gap, rel=1e-4)
    length = float(size(norm, step, torch.zeros_like(step), scale))
    expected = _smallest(norm, (normal * scale).double().numpy()[0], gap)
    assert length == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_positive_and_finite(eps):
    with pytest.raises(SpecError, match=r"here\.eps = .* is not allowed"):
        ball("linf", eps, torch.tensor(1.0), "/255", "here")


def test_an_unknown_norm_names_the_nearest():
    with pytest.raises(SpecError, match=r"here\.norm = 'linff' is not known: .*did you mean 'linf'"):
        ball("linff", 1.0, torch.tensor(1.0), "/255", "here")
