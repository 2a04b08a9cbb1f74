"""Counts and stored grey levels: attacks walk between whole numbers and are judged at them."""

import itertools

import pytest
import torch

from titer.assess.judge import attack_rows
from titer.core.plugins import make_attack, plugin
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rounding import settled
from titer.threats.rules import Box, ordered, whole_numbers

FEATURES = 8
COUNTS = (Box(low=0.0, high=float("inf"), text="counts are not negative"), whole_numbers())


def _threat(norm, eps, scale=1.0, domain=COUNTS, access="gradient"):
    budget = ball(norm, eps, torch.as_tensor(scale), "count")
    return Threat(family=norm, budget=budget, domain=domain, goal=AnyError(), access=access)


@pytest.fixture
def counts(linear_model):
    """A linear model of two classes on counts far from 0, each row's class, and its distance in L1-dual terms."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn((1, FEATURES), generator=rng)
    weights = weights - weights.mean()
    model = linear_model(torch.cat([weights, -weights]) / 2)
    x = torch.randint(40, 60, (300, FEATURES), generator=rng).float()
    y = model.logits(x).argmax(1)
    lead = (x @ weights[0]).abs()
    return model, x, y, lead, weights[0].abs()


@pytest.mark.parametrize("name", ["bim", "mim", "pgd", "apgd", "fmn", "carlini-wagner", "fab", "square", "worst-case"])
def test_the_largest_change_of_whole_numbers_is_found(name, counts):
    """Of 2.6 counts, 2 can be used: on a linear model every row that they turn is known."""
    model, x, y, lead, weights = counts
    turned = lead < 2 * weights.sum()
    assert 30 < int(turned.sum()) < 270
    threat = _threat("linf", 2.6, access="scores" if name == "square" else "gradient")
    minimal = "minimal" in plugin("attacks", name).traits
    found = attack_rows(make_attack(name), model, x, y, threat, minimal=minimal)
    won = found.verdict.won
    assert not bool((won & ~turned).any())
    assert int(won.sum()) >= 0.97 * int(turned.sum())
    assert not bool(found.proposal.put_back.any())
    assert torch.equal(found.proposal.x_adv, found.proposal.x_adv.round())


@pytest.mark.parametrize(
    ("name", "norm"),
    [*itertools.product(["deepfool", "carlini-wagner", "fmn", "fab"], ["linf", "l2"]), ("ddn", "l2"), ("fmn", "l1")],
)
def test_least_perturbations_are_whole_and_near_the_plane(name, norm, counts):
    model, x, y, lead, weights = counts
    found = attack_rows(make_attack(name), model, x, y, _threat(norm, 1.0), minimal=True).proposal.x_adv
    assert torch.equal(found, found.round())
    assert bool((model.logits(found).argmax(1) != y).all())
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    dual = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    least = lead / torch.linalg.vector_norm(weights, ord=dual)
    length = torch.linalg.vector_norm(found - x, ord=order, dim=1)
    assert bool((length >= least * (1 - 1e-4)).all())
    # Rounding each value costs up to a half of it, and one value alone can make up for the others.
    assert float((length - least).median()) < {"linf": 1.01, "l2": 1.5, "l1": 2.0}[norm]


def test_settled_inputs_keep_budget_box_and_order():
    rng = torch.Generator().manual_seed(1)
    x = torch.randint(0, 6, (200, 6), generator=rng).float()
    x[:, 3] += x[:, 0]
    rules = (Box(low=0.0, high=float("inf")), ordered((0,), (3,), "first <= fourth"), whole_numbers())
    for norm, eps in itertools.product(["linf", "l2", "l1"], [0.4, 1.6, 2.7]):
        threat = _threat(norm, eps, scale=[0.5, 1.0, 1.5, 1.0, 2.0, 0.7], domain=rules)
        walked = threat.project(x + 3 * torch.randn(x.shape, generator=rng), x)
        walked = walked + 0.3 * (torch.rand(x.shape, generator=rng) - 0.5)
        near = settled(threat, walked, x, free=False)
        assert bool(threat.contains(near, x).all())
        assert torch.equal(near, settled(threat, near, x, free=False)), "what is settled stays"
