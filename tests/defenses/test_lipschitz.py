"""Lipschitz-constrained networks: the stated constant holds, and what cannot be held is refused."""

import math
import re

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make_attack, make_defense
from titer.core.threat import Threat
from titer.engine.bound_graph import graph
from titer.engine.lipschitz import constant, measured, overlap
from titer.threats.balls import ball
from titer.threats.goals import AnyError

SPEC = {"name": "lipschitz", "constant": 0.1, "unit": "grey level", "epochs": 8, "learning_rate": 0.01}


def _stated(model):
    return float(re.match(r"[\d.e-]+", model.provenance["lipschitz"])[0])


def _convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


@pytest.fixture(params=["dense", "convolutional"])
def start(request, images):
    if request.param == "dense":
        return images.model
    return network_model("convolutional", _convolutional(), lambda x: (x - 128) / 32, {})


@pytest.mark.parametrize("layers", ["orthogonal", "spectral"])
def test_the_stated_constant_holds(start, layers, images):
    model = make_defense(SPEC | {"layers": layers})(start, images.data, rng=torch.Generator().manual_seed(0))
    stated = _stated(model)
    assert 0 < stated <= 0.1
    steepest = torch.func.vmap(torch.func.jacrev(lambda x: model.logits(x[None])[0]))(images.test.x[:30])
    found = torch.linalg.matrix_norm(steepest.flatten(2), ord=2)
    assert bool((found <= stated * (1 + 1e-5)).all())
    a, b = images.test.x, 255 * torch.rand(images.test.x.shape, generator=torch.Generator().manual_seed(1))
    moved = (model.logits(a) - model.logits(b)).norm(dim=1)
    assert bool((moved <= stated * (a - b).flatten(1).norm(dim=1)).all())


def test_no_attack_succeeds_within_the_lead_over_the_constant(images):
    model = make_defense(SPEC)(images.model, images.data, rng=torch.Generator().manual_seed(0))
    x, y = images.test.x[:40], images.test.y[:40]
    logits = model.logits(x)
    right = logits.argmax(1) == y
    assert float(right.float().mean()) > 0.85
    radius = (logits[:, 0] - logits[:, 1]).abs() / (math.sqrt(2) * _stated(model))
    threat = Threat(family="l2", budget=ball("l2", 1e4, torch.tensor(1.0), "grey level"), domain=(), goal=AnyError())
    found = make_attack({"name": "fmn", "steps": 60})(model, x, y, threat, rng=torch.Generator().manual_seed(0))
    won = right & (model.logits(found).argmax(1) != y)
    distance = (found - x).flatten(1).norm(dim=1)
    assert bool(won.any())
    assert bool((distance[won] >= radius[won] * (1 - 1e-4)).all())


def test_the_returned_network_is_a_plain_one(images):
    model = make_defense(SPEC | {"epochs": 1})(images.model, images.data, rng=torch.Generator().manual_seed(0))
    assert set(model.net.state_dict()) == set(images.model.net.state_dict())
    assert not any(p.requires_grad for p in model.net.parameters())


@pytest.mark.parametrize(
    "part",
    [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Conv2d(2, 4, 2, groups=2),
        nn.Conv2d(2, 3, 3, dilation=2, padding="same"),
        nn.AvgPool2d(3, stride=2),
        nn.AdaptiveAvgPool2d(4),
        nn.Linear(6, 4),
        nn.Identity(),
        nn.MaxPool2d(3, stride=2),
        nn.BatchNorm2d(2),
    ],
)
def test_the_norm_of_a_layer_is_never_measured_too_small(part):
    torch.manual_seed(0)
    net = nn.Sequential(part).eval()
    x = torch.randn(1, 2, 6, 6)
    layers = graph(net, x)
    with torch.no_grad():
        linear = not isinstance(part, nn.MaxPool2d)
        jacobian = torch.func.jacrev(lambda one: net(one[None])[0].flatten())(x[0]).flatten(1)
        true = float(torch.linalg.matrix_norm(jacobian, ord=2))
        bound = constant(layers, measured)
    assert true <= bound * (1 + 1e-5)
    assert not linear or bound <= 2.0 * true
    if isinstance(part, nn.Conv2d):
        kernel = float(torch.linalg.matrix_norm(part.weight.detach().flatten(1), ord=2))
        assert true <= overlap(part) * kernel * (1 + 1e-5)


def test_a_sum_of_branches_adds_their_constants():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.one(x) + x

    net = Twice()
    nn.init.eye_(net.one.weight)
    assert constant(graph(net, torch.rand(1, 3)), measured) == pytest.approx(2.0, rel=1e-4)


def test_what_it_cannot_hold_is_refused(images):
    norm = network_model("norm", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2)), lambda x: x, {})
    with pytest.raises(Incompatible, match=r"cannot hold layer '1' \(batch norm\)"):
        make_defense(SPEC)(norm, images.data, rng=torch.Generator())
    ends = network_model("ends", nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.ReLU()), lambda x: x, {})
    with pytest.raises(Incompatible, match="ends in '2'"):
        make_defense(SPEC)(ends, images.data, rng=torch.Generator())
    with pytest.raises(Incompatible, match="unit 'sd'"):
        make_defense(SPEC | {"unit": "sd"})(images.model, images.data, rng=torch.Generator())
