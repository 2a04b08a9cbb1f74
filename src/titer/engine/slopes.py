"""What least-perturbation attacks read off a slope: its direction, and how far the boundary is if all is linear."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from titer.engine.ascent import State
from titer.engine.nearest import Slope, margin_slope
from titer.engine.rows import Rows
from titer.threats.balls import peaked, to_units
from titer.threats.losses import rival
from titer.threats.planes import room, step_to_plane

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf"), "l0": float("inf")}
_SMALLEST = 1e-6


def unit_gradient(rows: Rows, x_adv: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient by units, with an L2 norm of 1; 0 where no value can follow it."""
    direction, _ = peaked(rows.follow(x_adv, grad) * rows.threat.budget.scaled(rows.x))
    return direction / rows.per_row(torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp_min(1.0))


def linear_gap(rows: Rows, x_adv: Tensor, value: Tensor, grad: Tensor) -> Tensor:
    """Return float[n], how far `value` [n] is from 0 by its slope, in the threat's norm; infinity without a slope."""
    ball = rows.threat.budget
    slope, peak = peaked(rows.follow(x_adv, rows.per_row(-value.sign()) * grad) * ball.scaled(rows.x))
    length = torch.linalg.vector_norm(slope.flatten(1), ord=_DUAL[ball.norm], dim=1)
    gap: Tensor = value.abs() / peak / length
    return gap.where(length > 0, float("inf"))


def linear_step(rows: Rows, x_adv: Tensor, value: Tensor, grad: Tensor) -> Tensor:
    """Return the smallest change of x_adv, in raw values, after which `value` [n] is 0 by its slope, inside the box.

    Where a rule would bend the step, the slope is taken through the rule (a tied pair of values moves together).
    """
    ball, value = rows.threat.budget, value.where(value.abs() > _SMALLEST, -_SMALLEST)
    normal = rows.follow(x_adv, rows.per_row(-value.sign()) * grad)

    def step(normal: Tensor) -> Tensor:
        left = room(rows.threat.bounds(x_adv), x_adv, normal)
        return step_to_plane(ball.norm, normal, value.abs(), ball.scaled(x_adv), left)

    straight = step(normal)
    if all(rule.shrinks for rule in rows.threat.domain):
        return straight
    return step(_through_rules(rows, x_adv + straight, normal))


def _through_rules(rows: Rows, x_adv: Tensor, normal: Tensor) -> Tensor:
    """Return `normal` pulled back through the rules that couple values, as they bend at x_adv."""
    with torch.enable_grad():
        ahead = fixed = x_adv.detach().requires_grad_()
        for rule in rows.threat.domain:
            fixed = fixed if rule.shrinks else rule.project(fixed, rows.x)
    if not fixed.requires_grad:
        return normal
    bent = torch.autograd.grad(fixed, ahead, normal)[0]
    # Whole numbers have no slope at all: rounding is left to the projection.
    return torch.where(rows.per_row((bent != 0).flatten(1).any(1)), bent, normal)


def way_to_boundary(rows: Rows, value: Tensor, grad: Tensor) -> Tensor:
    """Return float[n], the L2 length in units of the way from the clean rows to the linearised boundary.

    A row without a slope is given the budget: it has to begin somewhere.
    """
    units = to_units(linear_step(rows, rows.x, value, grad), rows.threat.budget.scaled(rows.x))
    length = torch.linalg.vector_norm(units.flatten(1), dim=1)
    return torch.where((length > 0) & length.isfinite(), length, rows.threat.budget.eps)


def nearest_slope(candidates: int) -> Callable[[Rows, State], Slope]:
    """Return a look at the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, eq. 8).

    Where any error will do, each of the `candidates` likeliest other classes has its own boundary, and costs a pass.
    Every other goal and output, and two classes, have one boundary, where the margin is 0.
    """

    def look(rows: Rows, state: State) -> Slope:
        logits, value, grad = margin_slope(rows, state)
        goal = rows.threat.goal
        if rows.model.output != "classes" or goal.name != "any-error" or logits.shape[1] == 2:
            return Slope(logits, value, grad)
        live = (value <= 0).nonzero().flatten()
        rows, x_adv = rows.take(live), state["x_adv"][live]
        gap = linear_gap(rows, x_adv, value[live], grad[live])
        for rank in range(1, min(candidates, logits.shape[1] - 1) if len(live) else 1):
            other = rival(logits[live], rows.y, rank)
            slope = rows.evaluate(x_adv, _lead, other).grad
            lead = _lead(logits[live], rows.y, other)
            further = linear_gap(rows, x_adv, lead, slope)
            nearer = further < gap
            gap = torch.where(nearer, further, gap)
            value[live[nearer]], grad[live[nearer]] = lead[nearer], slope[nearer]
        return Slope(logits, value, grad)

    return look


def _lead(logits: Tensor, y: Tensor, other: Tensor) -> Tensor:
    return (logits.gather(1, other.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)
