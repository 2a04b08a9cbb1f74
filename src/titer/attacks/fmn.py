"""Fast minimum norm: gradient steps on the margin, inside a ball whose radius follows the boundary."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import NORMS, Needs
from titer.core.plugins import Count, Positive, Share, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.nearest import Descent, Seen, descend
from titer.engine.rows import Rows
from titer.engine.slopes import linear_gap, linear_step, unit_gradient, way_to_boundary
from titer.threats.balls import size, to_units
from titer.threats.radii import shortened

_LAST_STEP, _LAST_GAMMA = 1e-5, 1e-4
_PAST = 0.01


@attack(
    "fmn",
    paper="Pintor, Roli, Brendel, Biggio 2021, arXiv:2102.12827, algorithm 1",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=NORMS),
    minimal=True,
)
def fmn(*, steps: Count = 100, gamma: Share = 0.2, step: Positive = 1.0) -> Attack:
    """Fast minimum norm, in the threat's own norm.

    Args:
        steps: gradient steps.
        gamma: first share by which the ball shrinks after a success and grows after a failure; it falls to 0.0001.
        step: first step's length, as a multiple of the way to the linearised boundary; it falls to almost nothing.
    """

    def move(rows: Rows, state: State, seen: Seen, count: int) -> State:
        if count == 0:
            state |= {"first": way_to_boundary(rows, seen.value, seen.grad), "radius": torch.zeros_like(seen.value)}
        fall = (1 + math.cos(math.pi * count / steps)) / 2
        share = _LAST_GAMMA + (gamma - _LAST_GAMMA) * fall
        length = step * (_LAST_STEP + (1 - _LAST_STEP) * fall) * state["first"]
        radius = _radius(rows, state, seen, share)
        scale = rows.threat.budget.scaled(rows.x)
        direction = unit_gradient(rows, state["x_adv"], seen.grad)
        change = to_units(state["x_adv"] - rows.x, scale) + rows.per_row(length) * direction
        x_adv = rows.inside(rows.x + shortened(rows.threat.budget.norm, change, radius) * scale)
        return {**state, "x_adv": x_adv, "radius": radius}

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return descend(model, x, y, threat, Descent(steps=steps, step=move), rng=rng)

    return run


def _radius(rows: Rows, state: State, seen: Seen, share: float) -> Tensor:
    """Return the next radius (algorithm 1, lines 5 to 11; section 2.3 for l0, which changes by one value at least)."""
    counted, radius = rows.threat.budget.norm == "l0", state["radius"]
    grown, shrunk = radius * (1 + share), radius * (1 - share)
    if counted:
        grown, shrunk = torch.maximum(grown.floor(), radius + 1), torch.minimum(shrunk.floor(), radius - 1)
    gap = _values_to_change(rows, state, seen) if counted else _gap(rows, state, seen)
    crossing = seen.distance + gap
    if rows.whole is not None:  # rounding may take back what the slope asks for, for ever
        crossing = torch.maximum(crossing, grown)
    missed = torch.where(state["nearest"].isinf(), crossing, grown)
    won = torch.minimum(shrunk, state["nearest"] - int(counted))
    return torch.where(seen.won, won, missed).clamp_min(float(counted))


def _gap(rows: Rows, state: State, seen: Seen) -> Tensor:
    """Return the way to the linearised boundary, and a little more: on it, rounding alone would say who has won."""
    gap = linear_gap(rows, state["x_adv"], seen.value, seen.grad).nan_to_num(posinf=rows.threat.budget.eps)
    return gap + _PAST * (seen.distance + gap)


def _values_to_change(rows: Rows, state: State, seen: Seen) -> Tensor:
    """Return how many values have to change to reach the linearised boundary inside the box."""
    x_adv = state["x_adv"]
    step = linear_step(rows, x_adv, seen.value, seen.grad)
    return size("l0", x_adv + step, x_adv, rows.threat.budget.scaled(x_adv))
