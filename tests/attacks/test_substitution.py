"""Substitution against brute force on problems so small that every input of the threat can be tried."""

import itertools

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError, Targeted
from titer.threats.linkage import linkage_plausible
from titer.threats.rules import Box, MutableMask, whole_numbers

SITES = 7
DOSAGES = (Box(low=0.0, high=2.0), whole_numbers())


def _threat(eps, domain=DOSAGES, goal=None):
    budget = ball("l0", eps, torch.tensor(1.0), "values")
    return Threat(family="l0", budget=budget, domain=domain, goal=goal or AnyError())


def _network(seed=0, classes=3):
    """A random network on seven dosages, crooked enough that a value's best replacement depends on the others."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(SITES, 24), nn.Tanh(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, classes))
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    return network_model("crooked", net, lambda x: x - 1.0, {})


def _rows(model, count=60, seed=1):
    x = torch.randint(0, 3, (count, SITES), generator=torch.Generator().manual_seed(seed)).float()
    return x, model.logits(x).argmax(1)


def _possible(model, x, y, threat):
    """Whether any input of the threat reaches its goal, row by row: all 3^7 are tried."""
    every = torch.tensor(list(itertools.product((0.0, 1.0, 2.0), repeat=SITES)))
    logits = model.logits(every)
    return torch.tensor(
        [
            bool(
                (
                    threat.goal.won(logits, label.repeat(len(every)))
                    & threat.contains(every, row.repeat(len(every), 1))
                ).any()
            )
            for row, label in zip(x, y, strict=True)
        ]
    )


def _won(model, x, y, threat, **settings):
    found = make_attack({"name": "substitution", **settings})(model, x, y, threat, rng=torch.Generator())
    assert bool(threat.contains(found, x).all())
    return threat.goal.won(model.logits(found), y)


@pytest.mark.parametrize("eps", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_nearly_all_that_brute_force_finds(eps, seed):
    model = _network(seed)
    x, y = _rows(model)
    threat = _threat(eps)
    possible = _possible(model, x, y, threat)
    assert int(possible.sum()) > 0
    won = _won(model, x, y, threat)
    assert not bool((won & ~possible).any())
    assert int(won.sum()) >= 0.95 * int(possible.sum())


def test_one_replacement_is_always_found_where_all_are_tried():
    model = _network(3)
    x, y = _rows(model, 200)
    threat = _threat(1)
    assert torch.equal(_won(model, x, y, threat, tries=2 * SITES), _possible(model, x, y, threat))


def test_a_wider_search_finds_more_than_a_greedy_one():
    model = _network(4)
    x, y = _rows(model, 300)
    threat = _threat(2)
    possible = int(_possible(model, x, y, threat).sum())
    greedy = int(_won(model, x, y, threat, tries=1, beam=1, refine=0).sum())
    assert greedy < int(_won(model, x, y, threat).sum()) <= possible


def test_every_goal_and_every_rule_is_kept():
    model = _network(5)
    x, y = _rows(model, 200)
    people = torch.randint(0, 3, (40, SITES), generator=torch.Generator().manual_seed(3)).float()
    people[:, 1] = people[:, 0]
    linked = linkage_plausible(people, ((0, 1), (2, 3)), states=3, least_r2=0.5, frequency=0.05)
    mask = MutableMask(mask=torch.arange(SITES) < 6)
    threat = _threat(1, (*DOSAGES, mask, linked), Targeted(2, "targeted:c"))
    possible = _possible(model, x, y, threat) & (y != 2)
    won = _won(model, x, y, threat) & (y != 2)
    assert 10 < int(possible.sum()) < int((y != 2).sum())
    assert not bool((won & ~possible).any())
    # Of two linked sites neither can move alone, and one at a time is how the search moves.
    assert int(won.sum()) >= 0.8 * int(possible.sum())


def test_a_row_that_may_not_change_stays_as_it_is():
    model = _network(6)
    x, y = _rows(model, 20)
    threat = _threat(2, (*DOSAGES, MutableMask(mask=torch.zeros(SITES, dtype=torch.bool))))
    found = make_attack("substitution")(model, x, y, threat, rng=torch.Generator())
    assert torch.equal(found, x)


def test_values_without_an_end_are_refused():
    model = _network(7)
    x, y = _rows(model, 4)
    threat = _threat(2, (Box(low=0.0, high=float("inf")), whole_numbers()))
    with pytest.raises(Incompatible, match="a least and a largest one"):
        make_attack("substitution")(model, x, y, threat, rng=torch.Generator())
