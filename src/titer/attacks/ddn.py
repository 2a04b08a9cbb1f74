"""Decoupled direction and norm: follow the gradient on a sphere that shrinks on success and grows on failure."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, Share, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.nearest import Descent, Seen, descend, loss_slope
from titer.engine.rows import Rows
from titer.engine.slopes import unit_gradient, way_to_boundary
from titer.threats.balls import to_units

_LAST_STEP = 0.01


@attack(
    "ddn",
    paper="Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, arXiv:1811.09600, algorithm 1",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l2",)),
    minimal=True,
)
def ddn(*, steps: Count = 100, gamma: Share = 0.05, step: Positive = 1.0) -> Attack:
    """Decoupled direction and norm.

    Args:
        steps: gradient steps.
        gamma: share by which the sphere shrinks after a success and grows after a failure.
        step: first step's length, as a multiple of the way to the linearised boundary; it falls to a hundredth.
    """

    def move(rows: Rows, state: State, seen: Seen, count: int) -> State:
        scale = rows.threat.budget.scaled(rows.x)
        if count == 0:
            state |= _first(rows, seen)
        length = step * (_LAST_STEP + (1 - _LAST_STEP) * (1 + math.cos(math.pi * count / steps)) / 2)
        direction = unit_gradient(rows, state["x_adv"], seen.grad)
        change = to_units(state["x_adv"] - rows.x, scale) + rows.per_row(length * state["first"]) * direction
        radius = state["radius"] * torch.where(seen.won, 1 - gamma, 1 + gamma)
        size = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp_min(1e-30)
        x_adv = rows.inside(rows.x + rows.per_row(radius / size) * change * scale)
        return {**state, "x_adv": x_adv, "radius": radius}

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return descend(model, x, y, threat, Descent(steps=steps, step=move, look=loss_slope), rng=rng)

    return run


def _first(rows: Rows, seen: Seen) -> State:
    """Return first radius and step: the paper's 1 fits images in [0, 1], the way to the boundary fits any unit."""
    way = way_to_boundary(rows, seen.value, seen.grad)
    return {"radius": way, "first": way}
