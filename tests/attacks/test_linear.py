"""Attacks against linear models, whose worst input is known in closed form."""

import math

import pytest
import torch

from titer.core.errors import SpecError
from titer.core.plugins import make_attack
from titer.threats.balls import size
from titer.threats.goals import HighestLoss, Targeted

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
FEATURES = 20
SCALES = {
    "one": torch.tensor(1.0),
    "by feature": 0.2 + torch.rand(FEATURES, generator=torch.Generator().manual_seed(5)),
}


def _problem(linear_model, rows=30):
    rng = torch.Generator().manual_seed(2)
    weights = torch.randn((2, FEATURES), generator=rng)
    model = linear_model(weights, torch.tensor([0.3, -0.2]))
    x = torch.randn((rows, FEATURES), generator=rng)
    y = model.logits(x).argmax(1)
    return model, x, y, weights


def _dual(weights, scale, norm):
    return float(torch.linalg.vector_norm((weights[1] - weights[0]) * scale, ord=DUAL[norm]))


def _run(spec, model, x, y, threat):
    return make_attack(spec)(model, x, y, threat, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("attack", ["fgsm", "bim", "mim", "pgd", {"name": "pgd", "random_start": False}, "apgd"])
def test_the_highest_loss_is_reached(attack, norm, scale, linear_model, free_threat):
    model, x, y, weights = _problem(linear_model)
    threat = free_threat(norm, 0.5, scale, HighestLoss())
    x_adv = _run(attack, model, x, y, threat)
    assert bool(threat.contains(x_adv, x).all())
    clean, found = (threat.goal.loss(model.logits(rows), y) for rows in (x, x_adv))
    best = torch.full_like(clean, 0.5 * _dual(weights, scale, norm))
    # On the L2 sphere a random start turns towards the gradient by a factor of 1.1 a step: 1 - cos is 0.2 % after 40.
    torch.testing.assert_close(found - clean, best, rtol=3e-3 if (attack, norm) == ("pgd", "l2") else 1e-3, atol=0)


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("attack", ["fgsm", "bim", "mim", "pgd", "apgd"])
def test_success_is_exactly_where_the_margin_is_short(attack, norm, linear_model, free_threat):
    model, x, y, weights = _problem(linear_model)
    threat = free_threat(norm, 1.0)
    margins = -threat.goal.loss(model.logits(x), y)
    eps = float(margins.median()) / _dual(weights, 1.0, norm) * 1.001
    threat = threat.at(eps)
    won = threat.goal.won(model.logits(_run(attack, model, x, y, threat)), y)
    expected = margins < eps * _dual(weights, 1.0, norm)
    assert won.tolist() == expected.tolist()
    assert 0 < int(expected.sum()) < len(x)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("norm", DUAL)
def test_deepfool_walks_the_distance_to_the_plane(norm, scale, linear_model, free_threat):
    model, x, y, weights = _problem(linear_model)
    threat = free_threat(norm, 1e-3, scale)
    found = _run({"name": "deepfool", "overshoot": 0.02}, model, x, y, threat)
    assert bool(threat.goal.won(model.logits(found), y).all())
    distance = -threat.goal.loss(model.logits(x), y) / _dual(weights, scale, norm)
    torch.testing.assert_close(size(norm, found, x, scale), 1.02 * distance, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("norm", DUAL)
def test_deepfool_finds_the_nearest_of_several_planes(norm, linear_model, free_threat):
    rng = torch.Generator().manual_seed(3)
    weights, bias = torch.randn((5, FEATURES), generator=rng), torch.randn(5, generator=rng)
    model, x = linear_model(weights, bias), torch.randn((30, FEATURES), generator=rng)
    logits = model.logits(x)
    y = logits.argmax(1)
    leads = logits.gather(1, y.unsqueeze(1)) - logits
    slopes = torch.linalg.vector_norm(weights[y].unsqueeze(1) - weights, ord=DUAL[norm], dim=2)
    nearest = (leads / slopes).masked_fill(slopes == 0, float("inf")).amin(1)
    found = _run({"name": "deepfool", "overshoot": 0.01}, model, x, y, free_threat(norm, 1.0))
    torch.testing.assert_close(size(norm, found, x, torch.tensor(1.0)), 1.01 * nearest, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("norm", DUAL)
def test_deepfool_passes_by_a_rival_without_slope(norm, linear_model, free_threat):
    # Classes 0 and 1 have the same weights: no change of the input swaps them, but class 2 can be reached.
    model = linear_model(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.0, 0.0]))
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    found = _run("deepfool", model, x, y, free_threat(norm, 1.0))
    assert model.logits(found).argmax(1).tolist() == [2]


def test_deepfool_walks_to_a_target(linear_model, free_threat):
    model, x, y, _ = _problem(linear_model)
    goal = Targeted(1, "targeted:1")
    found = _run("deepfool", model, x, y, free_threat("l2", 1.0, goal=goal))
    assert bool(goal.won(model.logits(found), y)[y == 0].all())


def test_a_target_is_reached(linear_model, free_threat):
    weights = torch.eye(3)
    model, x, y = linear_model(weights), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]), torch.tensor([0, 2])
    x_adv = _run("pgd", model, x, y, free_threat("linf", 0.4, goal=Targeted(1, "targeted:1")))
    assert model.logits(x_adv).argmax(1).tolist() == [1, 1]


def test_more_overshoot_goes_further(linear_model, free_threat):
    model, x, y, _ = _problem(linear_model)
    runs = (_run({"name": "deepfool", "overshoot": o}, model, x, y, free_threat("l2", 1.0)) for o in (0.01, 0.5))
    near, far = (size("l2", found, x, torch.tensor(1.0)) for found in runs)
    torch.testing.assert_close(far / near, torch.full_like(near, 1.5 / 1.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "spec",
    [{"name": "pgd", "steps": 0}, {"name": "pgd", "step": -0.1}, {"name": "deepfool", "overshoot": float("nan")}],
)
def test_settings_out_of_their_limits_are_refused(spec):
    with pytest.raises(SpecError, match="is not allowed"):
        make_attack(spec)
