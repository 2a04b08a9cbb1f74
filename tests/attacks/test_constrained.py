"""Attacks under rules: a step that spends its length where nothing may change would pass for robustness."""

import math

import pytest
import torch

from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball, size
from titer.threats.goals import AnyError, HighestLoss
from titer.threats.rules import Box, MutableMask, followable

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
FEATURES = 20


@pytest.fixture
def weights():
    return torch.randn((2, FEATURES), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def mask(weights):
    """All but the feature that counts most, and half of the others."""
    chosen = torch.arange(FEATURES) % 2 == 0
    chosen[(weights[1] - weights[0]).abs().argmax()] = False
    return chosen


def _threat(norm, eps, *rules, goal=None):
    budget = ball(norm, eps, torch.tensor(1.0), "unit")
    return Threat(family=norm, budget=budget, domain=rules, goal=goal or AnyError())


def _run(spec, model, x, y, threat):
    return make_attack(spec)(model, x, y, threat, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd"])
def test_the_highest_loss_under_a_mask_is_reached(attack, norm, linear_model, weights, mask):
    model, x = linear_model(weights), torch.randn((20, FEATURES), generator=torch.Generator().manual_seed(1))
    y = model.logits(x).argmax(1)
    threat = _threat(norm, 0.5, MutableMask(mask=mask), goal=HighestLoss())
    found = _run(attack, model, x, y, threat)
    assert bool(threat.contains(found, x).all())
    rise = threat.goal.loss(model.logits(found), y) - threat.goal.loss(model.logits(x), y)
    best = 0.5 * float(torch.linalg.vector_norm((weights[1] - weights[0])[mask], ord=DUAL[norm]))
    torch.testing.assert_close(rise, torch.full_like(rise, best), rtol=1e-2, atol=0)


@pytest.mark.parametrize("norm", DUAL)
def test_deepfool_under_a_mask_walks_the_distance_to_the_plane(norm, linear_model, weights, mask):
    model, x = linear_model(weights), torch.randn((20, FEATURES), generator=torch.Generator().manual_seed(1))
    y = model.logits(x).argmax(1)
    threat = _threat(norm, 1.0, MutableMask(mask=mask))
    found = _run("deepfool", model, x, y, threat)
    assert bool(threat.allowed(found, x).all())
    assert bool(threat.goal.won(model.logits(found), y).all())
    slope = float(torch.linalg.vector_norm((weights[1] - weights[0])[mask], ord=DUAL[norm]))
    distance = -threat.goal.loss(model.logits(x), y) / slope
    torch.testing.assert_close(size(norm, found, x, torch.tensor(1.0)), 1.02 * distance, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        ({"name": "bim", "steps": 40, "step": 0.05}, 0.94),
        ({"name": "pgd", "random_start": False}, 0.89),
        # A random start spends the budget on every value, and soft-thresholding takes it back slowly.
        ({"name": "pgd", "steps": 400}, 0.89),
    ],
)
def test_an_l1_attack_in_a_box_goes_on_to_the_next_value(spec, share, linear_model):
    # The best it can do: the heaviest values to the end of the box one after the other, until the budget is spent.
    weights = torch.zeros(2, FEATURES)
    weights[1] = torch.linspace(2.0, 1.0, FEATURES)
    model, x, y = linear_model(weights), torch.full((5, FEATURES), 0.6), torch.zeros(5, dtype=torch.int64)
    threat = _threat("l1", 1.5, Box(low=0.0, high=1.0), goal=HighestLoss())
    found = _run(spec, model, x, y, threat)
    assert bool(threat.contains(found, x).all())
    gain = threat.goal.loss(model.logits(found), y) - threat.goal.loss(model.logits(x), y)
    best = float((weights[1, :3] * 0.4).sum() + weights[1, 3] * 0.3)
    assert float(gain.min()) > share * best
    assert float(gain.max()) < 1.001 * best


@pytest.mark.parametrize("norm", DUAL)
def test_deepfool_in_a_box_goes_round_what_is_full(norm, linear_model):
    weights = torch.zeros(2, FEATURES)
    weights[1] = torch.linspace(2.0, 1.0, FEATURES)
    model = linear_model(weights, torch.tensor([float(weights[1].sum()) * 0.9, 0.0]))
    x, y = torch.full((3, FEATURES), 0.8), torch.zeros(3, dtype=torch.int64)
    x[:, :4] = 1.0
    threat = _threat(norm, 1.0, Box(low=0.0, high=1.0))
    found = _run("deepfool", model, x, y, threat)
    assert bool(threat.allowed(found, x).all())
    assert bool(threat.goal.won(model.logits(found), y).all())


def test_what_may_be_followed():
    rules = (Box(low=0.0, high=1.0), MutableMask(mask=torch.tensor([True, True, True, True, False])))
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5]])
    up = torch.ones(1, 5)
    assert followable(rules, x, up).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0]]
    assert followable(rules, x, -up).tolist() == [[0.0, 0.0, -1.0, -1.0, 0.0]]
    assert followable((), x, up).tolist() == up.tolist()
