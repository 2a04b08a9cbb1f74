from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from titer.assess.judge import attack_rows
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import Linf
from titer.threats.band import SHARE, BandLimit, energy_above, slepian
from titer.threats.goals import AnyError
from titer.threats.rules import Box, followable, whole_steps

RATE, LIMIT, SAMPLES, STEP = 360.0, 40.0, 250, 0.005
RULE = BandLimit(limit=LIMIT, rate=RATE, resolution=STEP)


def rows(count: int = 6, leads: int = 1, seed: int = 0) -> Tensor:
    """ECG-like rows in mV, stored in whole steps."""
    rng = torch.Generator().manual_seed(seed)
    walk = torch.randn((count, leads, SAMPLES), generator=rng).cumsum(-1) / 16
    return (walk / STEP).round() * STEP


def threat(eps: float, *more: BandLimit) -> Threat:
    budget = Linf(eps=eps, scale=torch.tensor(1.0), unit="mV")
    return Threat(family="linf", budget=budget, domain=(Box(low=-50.0, high=50.0), *more), goal=AnyError())


def share_above(change: Tensor) -> Tensor:
    """The share of energy above the limit by a long, zero-padded Fourier transform: another way than the rule's."""
    spectrum = np.abs(np.fft.rfft(change.double().numpy(), n=2**17, axis=-1)) ** 2
    weight = np.full(spectrum.shape[-1], 2.0)
    weight[[0, -1]] = 1.0
    frequency = np.fft.rfftfreq(2**17, 1 / RATE)
    return torch.from_numpy((spectrum * weight * (frequency > LIMIT)).sum(-1) / (spectrum * weight).sum(-1))


def test_a_projected_change_has_no_energy_above_the_limit() -> None:
    x = rows(leads=2)
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    fixed = RULE.project(noisy, x)
    assert bool(RULE.contains(fixed, x).all())
    assert float(share_above(fixed - x).max()) < 1.1 * SHARE
    assert not bool(RULE.contains(noisy, x).any())
    measured = energy_above((noisy - x).double(), LIMIT / RATE) / (noisy - x).double().square().sum(-1)
    assert torch.allclose(measured, share_above(noisy - x), atol=1e-4)


def test_it_is_the_nearest_change_and_stays_where_it_is() -> None:
    x = rows()
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    fixed = RULE.project(noisy, x)
    assert torch.allclose(RULE.project(fixed, x), fixed, atol=1e-6)
    rest, kept = (noisy - fixed).flatten(1), (fixed - x).flatten(1)
    assert float((rest * kept).sum(1).abs().max()) < 1e-5
    basis = slepian(SAMPLES, LIMIT / RATE)
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), atol=1e-9)
    assert 40 <= len(basis) <= 2 * SAMPLES * LIMIT / RATE


def test_a_change_fades_out_at_both_ends() -> None:
    x = rows(50)
    change = RULE.project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x) - x
    ends = torch.stack([change[..., 0], change[..., -1]]).abs().amax(0)
    assert float((ends / change.abs().amax(-1)).max()) < 0.01


@pytest.mark.parametrize("kind", ["square wave", "spike", "shift", "tone above"])
def test_what_no_electrode_lets_through_is_refused(kind: str) -> None:
    x, time = rows(1), torch.arange(SAMPLES) / RATE
    changes = {
        "square wave": 0.1 * (2 * torch.pi * 10 * time).sin().sign(),
        "spike": torch.where(torch.arange(SAMPLES) == 120, 0.5, 0.0),
        "shift": torch.full((SAMPLES,), 0.1),
        "tone above": 0.1 * (2 * torch.pi * 60 * time).sin() * torch.hann_window(SAMPLES),
    }
    assert not bool(RULE.contains(x + changes[kind], x).any())
    assert bool(RULE.contains(x, x).all())


def test_a_slow_smooth_bump_is_allowed() -> None:
    x = rows(1)
    bump = 0.1 * torch.signal.windows.gaussian(SAMPLES, std=18.0)
    assert bool(RULE.contains(x + bump, x).all())


def test_stored_values_may_carry_their_rounding_and_others_no_noise() -> None:
    x = rows()
    smooth = RULE.project(x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x)
    stored = whole_steps(STEP, "stored").project(smooth, x)
    assert bool(RULE.contains(stored, x).all())
    assert not bool(BandLimit(limit=LIMIT, rate=RATE).contains(stored, x).any())
    dithered = smooth + 0.4 * STEP * torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    assert not bool(RULE.contains(dithered, x).any())


def test_budget_and_band_hold_together_and_nearly_all_of_the_budget_is_used() -> None:
    x, one = rows(40), threat(0.05, RULE)
    wild = x + 2 * RULE.along(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    found = one.project(wild, x)
    assert bool(one.contains(found, x).all())
    assert float((found - x).abs().flatten(1).amax(1).min()) > 0.98 * 0.05


def test_half_a_cycle_and_more_is_no_limit() -> None:
    x = rows(2)
    wild = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    free = BandLimit(limit=200.0, rate=RATE)
    assert torch.allclose(free.project(wild, x), wild, atol=1e-6)
    assert bool(free.contains(wild, x).all())


def test_attacks_follow_what_passes() -> None:
    direction = torch.randn((3, 1, SAMPLES), generator=torch.Generator().manual_seed(1))
    followed = followable((RULE,), rows(3), direction)
    assert torch.allclose(followed, RULE.along(direction))
    assert bool(RULE.contains(rows(3) + followed, rows(3)).all())


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_an_attack_comes_near_the_best_that_budget_and_band_allow(
    linear_model: Callable[..., Model], name: str
) -> None:
    """On a linear model the best change is a linear program: SciPy's simplex knows it exactly."""
    from scipy.optimize import linprog

    eps, x = 0.05, rows(3)
    slope = torch.randn((SAMPLES,), generator=torch.Generator().manual_seed(3)) / SAMPLES**0.5
    basis = slepian(SAMPLES, LIMIT / RATE).numpy()
    sides = np.concatenate([basis.T, -basis.T])
    best = -linprog(-basis @ slope.double().numpy(), sides, np.full(2 * SAMPLES, eps), bounds=(None, None)).fun
    # The first class leads by more than can be won, so that the attack climbs to its end.
    model = linear_model(torch.stack([-slope / 2, slope / 2]), torch.tensor([50.0, -50.0]))
    y = torch.zeros(3, dtype=torch.int64)
    made = make_attack({"name": name, "steps": 60})
    proposal = attack_rows(made, model, x, y, threat(eps, RULE), seed=1).proposal
    assert not bool(proposal.put_back.any())
    reached = ((proposal.x_adv - x).flatten(1).double() @ slope.double()) / best
    assert float(reached.max()) <= 1 + 1e-3
    assert float(reached.min()) > 0.9
