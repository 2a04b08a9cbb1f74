"""Values that are stored in steps of a recorder: attacks walk between the steps and end on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from titer.assess.judge import attack_rows
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Region, Threat
from titer.threats.balls import Linf
from titer.threats.band import BandLimit
from titer.threats.goals import AnyError
from titer.threats.rounding import settled
from titer.threats.rules import Box, whole_steps

STEP, SAMPLES = 0.005, 120
STORED = whole_steps(STEP, "stored")
BAND = BandLimit(limit=40.0, rate=360.0, resolution=STEP)


def threat(eps: float, *rules: Region) -> Threat:
    budget = Linf(eps=eps, scale=torch.tensor(1.0), unit="mV")
    return Threat(family="linf", budget=budget, domain=(Box(low=-5.12, high=5.115), *rules), goal=AnyError())


def rows(count: int = 4) -> torch.Tensor:
    walk = torch.randn((count, 1, SAMPLES), generator=torch.Generator().manual_seed(0)).cumsum(-1) / 20
    return (walk / STEP).round() * STEP


def test_float32_multiples_of_a_step_are_whole_and_halves_are_not() -> None:
    steps = torch.arange(-1024.0, 1024.0).unsqueeze(1)
    assert bool(STORED.contains(steps * STEP, steps).all())
    assert bool(STORED.contains(steps / 200, steps).all())
    assert not bool(STORED.contains((steps + 0.5) * STEP, steps).any())
    assert not bool(STORED.contains((steps + 0.01) * STEP, steps).any())


def test_what_lies_between_is_settled_on_steps_inside_the_budget() -> None:
    x = rows()
    between = x + 0.0124 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    one = threat(0.0124, STORED)
    found = settled(one, between, x, free=False)
    assert bool(one.contains(found, x).all())
    assert float((found - x).abs().max()) == pytest.approx(2 * STEP, abs=1e-6)


@pytest.mark.parametrize("rules", [(STORED,), (BAND, STORED)])
def test_a_gradient_attack_ends_on_steps_and_uses_the_budget(
    linear_model: Callable[..., Model], rules: tuple[Region, ...]
) -> None:
    x, slope = rows(), torch.hann_window(SAMPLES)
    model = linear_model(torch.stack([-slope, slope]), torch.tensor([50.0, -50.0]))
    one = threat(0.05, *rules)
    y = torch.zeros(len(x), dtype=torch.int64)
    proposal = attack_rows(make_attack({"name": "pgd", "steps": 20}), model, x, y, one, seed=0).proposal
    assert not bool(proposal.put_back.any())
    assert bool(one.contains(proposal.x_adv, x).all())
    assert float((proposal.x_adv - x).flatten(1).amax(1).min()) > 0.045
