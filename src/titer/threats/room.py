"""How much room a threat leaves each value: the limits of its boxes, with the budget or without, and what is fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.threat import Bounds, Threat
from titer.threats.rules import MutableMask, RowMask

_FEW = 8
"""A value with at most so many whole numbers to choose from has each of them; others have their ends alone."""


def limits(threat: Threat, x: Tensor) -> Bounds:
    """Return the least and the largest value allowed, each shaped as one row of x [N, ...]; infinite without a box."""
    low, high = torch.full_like(x[0], -float("inf")), torch.full_like(x[0], float("inf"))
    bounds = threat.bounds(x)
    return (low, high) if bounds is None else (low.maximum(bounds[0]), high.minimum(bounds[1]))


def box(threat: Threat, x: Tensor) -> Bounds | None:
    """Return lowest and highest raw values for x [N, ...], or None where a value is unbounded or a rule bends."""
    bounds = limits(threat, x)
    finite = all(bool(bound.isfinite().all()) for bound in bounds)
    return bounds if finite and all(rule.shrinks for rule in threat.domain) else None


def ends(threat: Threat, x: Tensor) -> Bounds:
    """Return the lowest and the highest that an Linf budget and the shrinking rules allow each value, both [N, ...]."""
    limit = threat.budget.eps * threat.budget.scaled(x)
    low, high = x - limit, x + limit
    for rule in threat.domain:
        if rule.shrinks:
            low, high = rule.project(low, x), rule.project(high, x)
    return low, high


def choices(threat: Threat, x: Tensor) -> Tensor:
    """Return float[V, D], values worth a try for each of the D values of a row of x [N, ...]; NaN where it has fewer.

    The ends of its range; where a rule asks for whole numbers (of a step) and few lie between the ends, each of them:
    one copy of an allele need not do half of what two do.
    """
    low, high = (bound.flatten() for bound in limits(threat, x))
    step = max((getattr(rule, "step", 1.0) for rule in threat.domain if getattr(rule, "rounds", False)), default=0.0)
    first, last = (low / step).ceil(), (high / step).floor()
    few = (last - first < _FEW) & (last >= first) if step else torch.zeros_like(low, dtype=torch.bool)
    most = int((last - first)[few].max()) + 1 if bool(few.any()) else 2
    steps = first + torch.arange(max(most, 2), device=low.device, dtype=low.dtype).unsqueeze(1)
    inner = (steps * step).masked_fill(steps > last, float("nan"))
    outer = torch.full_like(inner, float("nan"))
    outer[:2] = torch.stack([low, high])
    return torch.where(few, inner, outer)


def may_change(threat: Threat, x: Tensor) -> Tensor:
    """Return bool, shaped as one row of x [N, ...]: under every mask (of some row), and of a scale that is not 0."""
    free = (threat.budget.scaled(x) > 0).expand_as(x[0]).clone()
    for rule in threat.domain:
        if isinstance(rule, MutableMask):
            free &= rule.mask.to(free.device)
        elif isinstance(rule, RowMask):
            free &= rule.find(x).any(0)
    return free
