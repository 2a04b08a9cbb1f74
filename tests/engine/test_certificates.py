"""A certificate is sound: no attack ever wins a certified row, and easy rows are certified."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.engine.certificates import certified
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box


def _network(seed, widths, outputs=3):
    torch.manual_seed(seed)
    sizes = [4, *widths]
    parts = [p for a, b in pairwise(sizes) for p in (nn.Linear(a, b), nn.ReLU())]
    return network_model(
        "net", nn.Sequential(nn.Flatten(), *parts, nn.Linear(sizes[-1], outputs)), lambda x: 2 * x - 1, {}
    )


def _threat(norm, eps):
    return Threat(
        family=norm,
        budget=ball(norm, eps, torch.tensor(0.5), "unit"),
        domain=(Box(low=0.0, high=3.0),),
        goal=AnyError(),
    )


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(2, 12), max_size=3),
    st.sampled_from(["linf", "l2", "l1"]),
    st.floats(0.01, 1.0),
)
@hypothesis_settings(max_examples=40)
def test_no_attack_wins_a_certified_row(seed, widths, norm, eps):
    model = _network(seed, widths)
    x = torch.rand((30, 4), generator=torch.Generator().manual_seed(seed)) * 3
    y, threat = model.logits(x).argmax(1), _threat(norm, eps)
    safe = certified(model, x, y, threat)
    assert not bool(certified(model, x, (y + 1) % 3, threat).any()), "a wrong prediction is never certified"
    for spec in ({"name": "pgd", "steps": 15, "restarts": 2}, {"name": "apgd", "steps": 20}):
        found = make_attack(spec)(model, x, y, threat, rng=torch.Generator().manual_seed(0))
        won = threat.goal.won(model.logits(threat.project(found, x)), y)
        assert not bool((won & safe).any())
    corners = threat.project(x + eps * torch.randn((30, 4)).sign(), x)
    assert not bool((threat.goal.won(model.logits(corners), y) & safe).any())


@pytest.mark.parametrize("widths", [[], [8], [8, 8]])
def test_rows_far_from_the_boundary_are_certified(widths):
    model = _network(3, widths)
    x = torch.rand((200, 4), generator=torch.Generator().manual_seed(0)) * 3
    y = model.logits(x).argmax(1)
    shares = [float(certified(model, x, y, _threat("linf", eps)).float().mean()) for eps in (1e-4, 0.05, 0.3)]
    assert shares[0] > 0.95
    assert shares == sorted(shares, reverse=True)
    assert shares[2] < 1.0


def test_on_a_linear_model_it_is_exact():
    model = _network(5, [], outputs=2)
    x = torch.full((50, 4), 1.5) + 0.2 * torch.randn((50, 4), generator=torch.Generator().manual_seed(1))
    y = model.logits(x).argmax(1)
    weight = model.net[1].weight
    reach = 2 * (weight[0] - weight[1]).abs().sum() * 0.5 * 0.1
    logits = model.logits(x)
    expected = (logits[:, 0] - logits[:, 1]).abs() > reach
    assert torch.equal(certified(model, x, y, _threat("linf", 0.1)), expected)


def test_convolutions_are_certified_and_other_networks_left_to_the_attacks(images, image_threat):
    x = images.test.x[:40]
    for middle, some in ((nn.ReLU(), True), (nn.Tanh(), False)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), middle, nn.Flatten(), nn.Linear(72, 2))
        model = network_model("conv", net, lambda x: (x - 128) / 32, {})
        y = model.logits(x).argmax(1)
        safe = certified(model, x, y, image_threat("linf", 0.5))
        assert bool(safe.any()) is some
        found = make_attack("pgd")(model, x, y, image_threat("linf", 0.5), rng=torch.Generator().manual_seed(0))
        assert not bool(((model.logits(found).argmax(1) != y) & safe).any())


def test_nothing_is_certified_where_the_weights_do_not_decide_alone(images, image_threat):
    x, y, threat = images.test.x[:20], images.test.y[:20], image_threat("linf", 1e-3)
    assert bool(certified(images.model, x, y, threat).any())
    others = (
        images.model.limited("scores"),
        replace(images.model, draw=lambda _: images.model.logits),
        replace(images.model, surrogate=images.model.logits),
        replace(images.model, logits=lambda x: -images.model.logits(x)),
        replace(images.model, output="labels"),
    )
    for model in others:
        assert not bool(certified(model, x, y, threat).any())
