"""Interval training: what it proves after training it could not prove before, and its loss is a bound."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make_certifier, make_defense
from titer.core.threat import Threat
from titer.defenses.interval_training import Bounded, Course, _grown
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.training.loop import CrossEntropy, fit
from titer.training.objectives import Penalty

SPEC = {"name": "interval-training", "eps": 4.0, "unit": "grey level", "epochs": 15, "learning_rate": 0.01}


def _certified(model, part, threat):
    found = make_certifier("interval-bounds")(model, part.x, threat, rng=torch.Generator())
    return float(((found.radius >= threat.budget.eps) & (found.prediction == part.y)).float().mean())


@pytest.fixture(scope="module")
def deep(images):
    """A network on which intervals widen: four linear layers, trained the usual way."""
    torch.manual_seed(0)
    widths = (64, 48, 48, 48)
    hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    start = network_model("deep", nn.Sequential(nn.Flatten(), *hidden, nn.Linear(48, 2)), lambda x: (x - 128) / 25, {})
    return fit(start, start.net, images.data, CrossEntropy(), seed=0)


@pytest.mark.parametrize("bounds", ["interval", "crown-interval"])
def test_it_proves_what_the_undefended_network_cannot(bounds, deep, images, image_threat):
    spec = SPEC | {"bounds": bounds, "eps": 3.0}
    defended = make_defense(spec)(deep, images.data, rng=torch.Generator().manual_seed(0))
    shares = [_certified(model, images.test, image_threat("linf", 3.0)) for model in (deep, defended)]
    assert shares[0] < 0.3, shares
    assert shares[1] > 0.7, shares
    assert float((defended.logits(images.test.x).argmax(1) == images.test.y).float().mean()) > 0.85


def _objective(images, **fields):
    budget = ball("linf", 3.0, torch.tensor(1.0), "grey level")
    threat = Threat(family="linf", budget=budget, domain=images.data.domain, goal=AnyError())
    settings = {"linear": False, "ramp": 0.5, "clean": 0.0, "course": Course(batches=1)} | fields
    return Bounded(rebuild=images.model.rebuild, threat=threat, penalty=Penalty(), **settings)


@pytest.mark.parametrize("linear", [False, True])
def test_the_loss_is_above_that_of_any_input_in_the_budget(linear, images, image_threat):
    net, x, y = images.model.net, images.test.x, images.test.y
    course = Course(batches=2, done=1)  # half way: the budget is whole
    objective = _objective(images, linear=linear, course=course)
    loss = float(objective.loss(net, images.model.logits, x, y, torch.Generator()))
    threat = image_threat("linf", 3.0)
    grad = images.model.grad(lambda out: threat.goal.loss(out, y), x)
    worst = threat.project(x + 3.0 * grad.sign(), x)
    assert loss >= float(Penalty()(images.model.logits(worst), y)) > float(Penalty()(images.model.logits(x), y))


def test_the_budget_grows_from_nothing_to_the_whole():
    shares = [_grown(done / 20, 0.5) for done in range(21)]
    assert shares[:3] == [0.0, 0.0, 0.0]
    assert shares == sorted(shares)
    assert shares[10:] == [1.0] * 11
    assert 0 < _grown(0.04, 0.05) < 1


def test_the_score_is_the_share_that_intervals_prove(images, image_threat):
    objective = _objective(images)
    score = objective.score(images.model.net, images.model.logits, images.test, torch.Generator())
    proven = _certified(images.model, images.test, image_threat("linf", 3.0))
    clean = float((images.model.logits(images.test.x).argmax(1) == images.test.y).float().mean())
    assert score == pytest.approx(proven + 1e-3 * clean, abs=0.011)


def test_batch_norm_is_trained_and_proven(images, image_threat):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4, 2)
    )
    start = network_model("norm", net, lambda x: x / 64 - 2, {})
    data = replace(images.data, train=images.data.train.take(range(128)))
    spec = SPEC | {"epochs": 2, "eps": 0.5, "bounds": "crown-interval"}
    model = make_defense(spec)(start, data, rng=torch.Generator().manual_seed(0))
    assert float(model.net[1].running_mean.abs().sum()) > 0
    assert float(start.net[1].running_mean.abs().sum()) == 0
    found = make_certifier("crown")(model, images.test.x[:4], image_threat("linf", 0.5), rng=torch.Generator())
    assert found.radius.shape == (4,)


def test_a_network_without_bounds_is_refused_with_its_layer(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 2))
    model = network_model("tanh", net, lambda x: x, {})
    with pytest.raises(Incompatible, match=r"layer '2' \(Tanh\) cannot be bounded"):
        make_defense(SPEC)(model, images.data, rng=torch.Generator())
    with pytest.raises(Incompatible, match="unit 'sd'"):
        make_defense(SPEC | {"unit": "sd"})(images.model, images.data, rng=torch.Generator())
