"""Every attack, on findings, values and masks: it wins where a large budget allows, or says why it cannot run."""

import pytest
import torch
from torch import nn

from titer.assess.judge import attack_rows
from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.registry import SHELVES
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.naming import goal
from titer.threats.rules import Box, MutableMask

ATTACKS = SHELVES["attacks"].all()
SIDE = 6
ROWS = 8
GOALS = {
    "labels": ("any-error", "hide:one"),
    "value": ("any-error", "lower:3"),
    "mask": ("any-error", "hide:one", "shrink:0.5"),
}
NAMES = {"labels": ("one", "two"), "value": ("age",), "mask": ("none", "one")}
NORMS = ("linf", "l2", "l1", "l0")
EPS = {"linf": 9.0, "l2": 60.0, "l1": 250.0, "l0": 36.0}


def _scene(output):
    """A frozen model of little slope, rows that it gets right, and what is true of them."""
    rng = torch.Generator().manual_seed(4)
    if output == "mask":
        net = nn.Conv2d(1, 2, 3, padding=1)
        y = torch.zeros((ROWS, SIDE, SIDE), dtype=torch.int64)
        y[:, 1:4, 2:5] = 1
        x = 128 + 6.0 * (2 * y.unsqueeze(1) - 1) + torch.randn((ROWS, 1, SIDE, SIDE), generator=rng)
        with torch.no_grad():
            net.weight.zero_()
            net.weight[0, 0, 1, 1], net.weight[1, 0, 1, 1] = -1.0, 1.0
            net.bias.copy_(torch.tensor([128.0, -128.0]) / 2)
            net.weight.div_(2)
        return network_model("mask", net, lambda rows: rows, {}), x, y
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 2 if output == "labels" else 1))
    x = 128 + 5 * torch.randn((ROWS, 1, SIDE, SIDE), generator=rng)
    with torch.no_grad():
        net[1].weight.copy_(0.2 * torch.randn(net[1].weight.shape, generator=rng))
        net[1].bias.copy_(-net[1].weight.sum(1) * 128)
        logits = net(x)
    return (
        network_model(output, net, lambda rows: rows, {}),
        x,
        (logits > 0).long() if output == "labels" else logits[:, 0],
    )


def _model(output):
    model, x, y = _scene(output)
    return Model(name=output, logits=model.logits, net=model.net, rebuild=model.rebuild, output=output), x, y


def _threat(plugin, output, name, norm):
    """A budget that any attack of this norm can win with; only the middle may change where a mask is needed."""
    needs = plugin.needs
    domain = (Box(low=0.0, high=255.0),)
    if needs.mask:
        middle = torch.zeros((1, SIDE, SIDE), dtype=torch.bool)
        middle[:, 1:5, 1:5] = True
        domain = (*domain, MutableMask(mask=middle))
    budget = ball(norm, 200.0 if needs.mask else EPS[norm], torch.tensor(1.0), "grey level")
    return Threat(
        family=norm, budget=budget, domain=domain, goal=goal(name, NAMES[output], "here", output, 2.0),
        access=needs.access,
    )  # fmt: skip


EVERY = [(name, output, wanted) for name in ATTACKS for output, names in GOALS.items() for wanted in names]


@pytest.mark.parametrize(("name", "output", "wanted"), EVERY)
def test_it_wins_or_says_why_it_cannot_run(name, output, wanted):
    plugin = ATTACKS[name]
    norm = next(norm for norm in NORMS if norm in plugin.needs.norms)
    model, x, y = _model(output)
    threat = _threat(plugin, output, wanted, norm)
    minimal = "minimal" in plugin.traits
    if plugin.needs.refused(name, threat, model) is not None:
        with pytest.raises(Incompatible, match=name):
            attack_rows(plugin.factory(), model, x, y, threat, minimal=minimal)
        return
    judged = attack_rows(plugin.factory(), model, x, y, threat, minimal=minimal)
    eligible = judged.verdict.eligible
    assert bool(eligible.any())
    assert not bool(judged.verdict.won[~eligible].any())
    assert float(judged.proposal.put_back.float().mean()) <= 0.1
    if "joint" not in plugin.traits:  # one small sticker for all rows cannot turn what each pixel says for itself
        assert float(judged.verdict.won[eligible].float().mean()) >= 0.5, judged.verdict.distances
