"""JSMA against linear models, where the fewest values are known, and at a size where a d x d matrix would not fit."""

import pytest
import torch
from torch import nn

from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError, Hidden, Targeted
from titer.threats.rules import Box, ordered

FEATURES = 30


def _threat(eps, goal=None, high=1.0):
    budget = ball("l0", eps, torch.tensor(1.0), "values")
    return Threat(family="l0", budget=budget, domain=(Box(low=0.0, high=high),), goal=goal or AnyError())


def _problem(linear_model, classes=2, rows=40):
    rng = torch.Generator().manual_seed(4)
    model = linear_model(torch.randn((classes, FEATURES), generator=rng))
    x = torch.rand((rows, FEATURES), generator=rng)
    return model, x, model.logits(x).argmax(1)


def _fewest(model, x, y):
    """The values to move to the end of their range, largest gain first, until the lead is gone: the optimum."""
    weight = model.net[1].weight
    counts = []
    for row, label in zip(x, y, strict=True):
        slope = weight[1 - label] - weight[label]
        gains = (slope * (torch.where(slope > 0, 1.0, 0.0) - row)).sort(descending=True).values
        lead = model.logits(row.unsqueeze(0))[0]
        need = float(lead[label] - lead[1 - label])
        counts.append(int((gains.cumsum(0) <= need).sum()) + 1)
    return torch.tensor(counts)


@pytest.mark.parametrize("at_once", [1, 2])
def test_on_a_linear_model_the_fewest_values_do(at_once, linear_model):
    model, x, y = _problem(linear_model)
    fewest = _fewest(model, x, y)
    for eps in (1, 2, 3, 4):
        threat = _threat(eps)
        found = make_attack({"name": "jsma", "at_once": at_once})(model, x, y, threat, rng=torch.Generator())
        assert bool(threat.contains(found, x).all())
        assert threat.goal.won(model.logits(found), y).tolist() == (fewest <= eps).tolist()
    assert 1 < int((fewest <= 4).sum()) <= 40


@pytest.mark.parametrize("goal", [Targeted(2, "targeted:c"), Hidden(1, "hide:b")])
def test_it_takes_every_goal(goal, linear_model):
    model, x, y = _problem(linear_model, classes=3)
    threat = _threat(12, goal)
    found = make_attack("jsma")(model, x, y, threat, rng=torch.Generator())
    applies = goal.applies(y)
    assert float(goal.won(model.logits(found), y)[applies].float().mean()) > 0.8


def test_values_without_an_end_move_too(linear_model):
    model, x, y = _problem(linear_model)
    threat = Threat(family="l0", budget=ball("l0", 2, torch.tensor(1.0), "values"), domain=(), goal=AnyError())
    found = make_attack("jsma")(model, x, y, threat, rng=torch.Generator())
    assert bool(threat.goal.won(model.logits(found), y).all())


def test_a_large_image_needs_no_matrix_of_pairs():
    # 224 x 224 pixels: the matrix of pairs alone would take 10 GiB a row in float32, and the test would die.
    net = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(49, 2))
    model = network_model("large", net, lambda rows: rows, {})
    x = torch.rand((2, 1, 224, 224), generator=torch.Generator().manual_seed(0))
    y = model.logits(x).argmax(1)
    threat = _threat(40)
    found = make_attack("jsma")(model, x, y, threat, rng=torch.Generator())
    assert int((found != x).flatten(1).sum(1).max()) <= 40
    assert bool((threat.goal.margin(model.logits(found), y) > threat.goal.margin(model.logits(x), y)).all())


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_move_that_the_rules_refuse_does_not_end_the_search(at_once, linear_model):
    # Value 0 counts most, but it may not pass value 1, which must then move too: the budget of one has no room for it.
    model = linear_model(torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 1.0]]), torch.tensor([1.0, 0.0]))
    rules = (Box(low=0.0, high=2.0), ordered((0,), (1,), "value 1 is at least value 0"))
    budget = ball("l0", 1, torch.tensor(1.0), "values")
    threat = Threat(family="l0", budget=budget, domain=rules, goal=AnyError())
    x, y = torch.tensor([[0.0, 0.0, 0.5], [0.1, 0.1, 0.3]]), torch.tensor([0, 0])
    assert model.logits(x).argmax(1).tolist() == [0, 0]
    found = make_attack({"name": "jsma", "at_once": at_once})(model, x, y, threat, rng=torch.Generator())
    assert bool(threat.contains(found, x).all())
    assert bool(threat.goal.won(model.logits(found), y).all())
    assert torch.equal(found[:, :2], x[:, :2])


def _greedy(model, x, y, threat, most):
    """Return how many values a search needs that tries each value at both ends of its range, int64[n]."""
    needed = torch.full((len(x),), most + 1)
    for row in range(len(x)):
        best, label = x[row].flatten(), y[row : row + 1]
        for count in range(1, most + 1):
            tried = best.repeat(2 * len(best), 1)
            tried[torch.arange(len(tried)), torch.arange(len(best)).repeat(2)] = torch.tensor(
                [0.0, 255.0]
            ).repeat_interleave(len(best))
            margins = threat.goal.margin(model.logits(tried.view(-1, *x.shape[1:])), label.expand(len(tried)))
            best = tried[margins.argmax()]
            if float(margins.max()) > 0:
                needed[row] = count
                break
    return needed


def test_it_needs_hardly_more_values_than_a_search_that_tries_each(images):
    right = (images.model.logits(images.test.x).argmax(1) == images.test.y).nonzero().flatten()[:40]
    x, y = images.test.x[right], images.test.y[right]
    threat = _threat(12, high=255.0)
    found = make_attack({"name": "jsma", "at_once": 1})(images.model, x, y, threat, rng=torch.Generator())
    greedy = _greedy(images.model, x, y, threat, 12)
    assert bool((greedy <= 12).all())
    assert bool(threat.goal.won(images.model.logits(found), y).all())
    changed = (found != x).flatten(1).sum(1)
    assert float(changed.float().mean()) <= 1.1 * float(greedy.float().mean())
