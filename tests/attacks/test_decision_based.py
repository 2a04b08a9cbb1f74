"""Attacks that see decisions alone: near the known optimum, inside the rules, and never beyond their queries."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.assess.judge import propose
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball, size
from titer.threats.goals import Hidden, HighestLoss, Targeted
from titer.threats.rules import Box, MutableMask, whole_numbers

DUAL = {"linf": 1, "l2": 2}
ATTACKS = [("hopskipjump", "l2"), ("hopskipjump", "linf"), ("boundary", "l2")]
FEATURES = 20

every_attack = pytest.mark.parametrize(("attack", "norm"), ATTACKS)


def _spec(attack, queries):
    return {"name": attack, "queries": queries}


def _run(spec, model, x, y, threat, seed=0):
    return make_attack(spec)(model.limited("decision"), x, y, threat, rng=torch.Generator().manual_seed(seed))


def _proposed(spec, model, x, y, threat):
    none = torch.zeros(len(x), dtype=torch.bool)
    return propose(make_attack(spec), model, x, y, threat, none, minimal=True, rng=torch.Generator().manual_seed(0))


def _distance(norm, found, x, scale=1.0):
    return size(norm, found, x, torch.as_tensor(scale))


def _linear(linear_model, rows=20):
    rng = torch.Generator().manual_seed(2)
    model = linear_model(torch.randn((2, FEATURES), generator=rng), torch.tensor([0.3, -0.2]))
    x = torch.randn((rows, FEATURES), generator=rng)
    return model, x, model.logits(x).argmax(1)


def _plane(model, x, y, threat, norm, scale=1.0, mask=None):
    """Return how far the plane is from each row: the margin over the weights' dual norm."""
    slope = (model.net[1].weight[1] - model.net[1].weight[0]) * scale
    slope = slope if mask is None else slope[mask]
    return -threat.goal.margin(model.logits(x), y) / float(torch.linalg.vector_norm(slope, ord=DUAL[norm]))


@pytest.mark.parametrize("scale", [torch.tensor(1.0), 0.5 + torch.arange(FEATURES) / FEATURES], ids=["one", "by feature"])
@every_attack
def test_it_finds_the_distance_to_the_plane(attack, norm, scale, linear_model, free_threat):
    model, x, y = _linear(linear_model)
    threat = free_threat(norm, 1.0, scale)
    found = _run(_spec(attack, 3000), model, x, y, threat)
    assert bool(threat.goal.won(model.logits(found), y).all())
    longer = _distance(norm, found, x, scale) / _plane(model, x, y, threat, norm, scale)
    assert float(longer.min()) > 0.9999
    assert float(longer.median()) < 1.05
    assert float(longer.max()) < 1.15
