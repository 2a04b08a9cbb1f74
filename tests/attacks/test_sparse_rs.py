"""Sparse-RS: as few values as it may, against the optimum of a linear model, and where no gradient leads."""

import pytest
import torch

from titer.attacks.sparse_rs import exchanges
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError, Targeted
from titer.threats.rules import Box, MutableMask

FEATURES = 40


def _threat(eps, goal=None, rules=()):
    budget = ball("l0", eps, torch.tensor(1.0), "values")
    return Threat(
        family="l0", budget=budget, domain=(Box(low=0.0, high=1.0), *rules), goal=goal or AnyError(), access="scores"
    )


def _problem(linear_model, classes=2, rows=40):
    rng = torch.Generator().manual_seed(4)
    model = linear_model(torch.randn((classes, FEATURES), generator=rng)).limited("scores")
    x = torch.rand((rows, FEATURES), generator=rng)
    return model, x, model.logits(x).argmax(1)


def _run(model, x, y, threat, **settings):
    return make_attack({"name": "sparse-rs", **settings})(model, x, y, threat, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("eps", [1, 2])
def test_it_comes_near_the_optimum_of_a_linear_model(eps, linear_model):
    rng = torch.Generator().manual_seed(4)
    weight = torch.randn((2, FEATURES), generator=rng)
    model, x, y = _problem(linear_model)
    found = _run(model, x, y, _threat(eps), queries=2000)
    slope = weight[1 - y] - weight[y]
    best = (slope * (torch.where(slope > 0, 1.0, 0.0) - x)).topk(eps, dim=1).values.sum(1)
    lead = model.logits(x).gather(1, y.unsqueeze(1)) - model.logits(x).gather(1, (1 - y).unsqueeze(1))
    possible = best > lead.squeeze(1)
    won = model.logits(found).argmax(1) != y
    assert bool(_threat(eps).contains(found, x).all())
    assert 5 < int(possible.sum()) < 40
    assert int(won.sum()) >= 0.9 * int(possible.sum())
    assert not bool((won & ~possible).any())


def test_it_finds_the_few_values_that_trees_look_at():
    """Steps at thresholds of three of 400 values: no slope anywhere, and all three are needed."""
    places = torch.tensor([17, 230, 391])

    def logits(x):
        votes = (x[:, places] > 0.8).float().sum(1)
        return torch.stack([2.5 - votes, torch.zeros_like(votes)], 1)

    model = Model(name="steps", logits=logits, access="scores")
    x = 0.5 * torch.rand((20, 400), generator=torch.Generator().manual_seed(0))
    y = torch.zeros(20, dtype=torch.int64)
    found = _run(model, x, y, _threat(10), queries=2000)
    assert float((logits(found).argmax(1) != y).float().mean()) > 0.8


def test_it_takes_goals_and_masks(linear_model):
    model, x, y = _problem(linear_model, classes=3)
    mask = torch.arange(FEATURES) < 30
    threat = _threat(12, Targeted(2, "targeted:c"), (MutableMask(mask=mask),))
    found = _run(model, x, y, threat)
    assert torch.equal(found[:, 30:], x[:, 30:])
    applies = threat.goal.applies(y)
    assert float(threat.goal.won(model.logits(found), y)[applies].float().mean()) > 0.6


def test_the_exchanges_shrink_on_the_schedule():
    shares = [exchanges(0.3, query, 1000, 100) for query in (0, 6, 21, 51, 101, 201, 401, 601, 999)]
    assert shares == [30, 8, 6, 5, 4, 3, 2, 2, 2]
    assert exchanges(0.3, 999, 1000, 2) == 1
