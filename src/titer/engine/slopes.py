"""What least-perturbation attacks read off a slope: its direction in units, and how far the boundary is by it."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.engine.nearest import Seen
from titer.engine.rows import Rows
from titer.threats.balls import peaked, to_units
from titer.threats.planes import room, step_to_plane


def unit_gradient(rows: Rows, x_adv: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient by units, with an L2 norm of 1; 0 where no value can follow it."""
    direction, _ = peaked(rows.follow(x_adv, grad) * rows.threat.budget.scaled(rows.x))
    return direction / rows.per_row(torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp_min(1.0))


def linear_step(rows: Rows, x_adv: Tensor, value: Tensor, grad: Tensor) -> Tensor:
    """Return the smallest change of x_adv, in raw values, after which `value` [n] is 0 by its slope, inside the box."""
    ball = rows.threat.budget
    normal = rows.follow(x_adv, rows.per_row(-value.sign()) * grad)
    return step_to_plane(ball.norm, normal, value.abs(), ball.scaled(x_adv), room(rows.threat.domain, x_adv, normal))


def way_to_boundary(rows: Rows, seen: Seen) -> Tensor:
    """Return float[n], the L2 length in units of the way from the clean rows to the linearised boundary.

    A row without a slope, or at the boundary, is given one unit of the budget: it has to begin somewhere.
    """
    units = to_units(linear_step(rows, rows.x, seen.value, seen.grad), rows.threat.budget.scaled(rows.x))
    length = torch.linalg.vector_norm(units.flatten(1), dim=1)
    return torch.where((length > 0) & length.isfinite(), length, rows.threat.budget.eps)
