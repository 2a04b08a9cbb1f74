"""Local search against models whose worst case is known: sums of single values, with and without a slope."""

from __future__ import annotations

import pytest
import torch

from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box

ROWS, VALUES, CLASSES = 40, 60, 4
SHAPE = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(CLASSES, VALUES, generator=SHAPE)
X = torch.rand(ROWS, VALUES, generator=SHAPE)


def threat(eps: float) -> Threat:
    return Threat(
        family="l0",
        budget=ball("l0", eps, torch.tensor(1.0), "values", "threat"),
        domain=(Box(low=0.0, high=1.0),),
        goal=AnyError(),
        access="scores",
    )


def scores(x: torch.Tensor) -> torch.Tensor:
    """Return a sum over values that are called above 0.3 or below, without a slope anywhere."""
    return (x > 0.3).to(x) @ WEIGHTS.t()


def worst(x: torch.Tensor, y: torch.Tensor, eps: int) -> torch.Tensor:
    """Return bool[N], which rows `eps` values can turn: for each rival the values that gain most."""
    called = (x > 0.3).float()
    logits = scores(x)
    turned = torch.zeros(len(x), dtype=torch.bool)
    for rival in range(CLASSES):
        slope = WEIGHTS[rival] - WEIGHTS[y]
        gain = torch.where(called == 1, -slope, slope).clamp_min(0).topk(eps, dim=1).values.sum(1)
        turned |= (y != rival) & (logits[:, rival] + gain > logits.gather(1, y.unsqueeze(1)).squeeze(1))
    return turned


@pytest.mark.parametrize("eps", [1, 3, 8])
@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_it_is_exact_on_a_sum_of_calls_that_have_no_slope(eps: int, rounds: int) -> None:
    y = scores(X).argmax(1)
    attack = make_attack({"name": "local-search", "rounds": rounds})
    model = Model(name="calls", logits=scores, access="scores")
    found = attack(model, X, y, threat(eps), rng=torch.Generator().manual_seed(0))
    assert bool(threat(eps).contains(found, X).all())
    won = scores(found).argmax(1) != y
    if rounds == 1:
        assert won.tolist() == worst(X, y, eps).tolist()
    else:  # what is chosen early may be the wrong rival's
        assert not bool((won & ~worst(X, y, eps)).any())
        assert int(won.sum()) >= 0.8 * int(worst(X, y, eps).sum())


def test_some_rows_hold_and_some_fall() -> None:
    y = scores(X).argmax(1)
    assert 0 < int(worst(X, y, 3).sum()) < ROWS
