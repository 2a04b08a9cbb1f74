"""How much room a threat leaves each value: the limits of its boxes, with the budget or without, and what is fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.threat import Bounds, Threat
from titer.threats.rules import MutableMask, RowMask


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


def may_change(threat: Threat, x: Tensor) -> Tensor:
    """Return bool, shaped as one row of x [N, ...]: under every mask (of some row), and of a scale that is not 0."""
    free = (threat.budget.scaled(x) > 0).expand_as(x[0]).clone()
    for rule in threat.domain:
        if isinstance(rule, MutableMask):
            free &= rule.mask.to(free.device)
        elif isinstance(rule, RowMask):
            free &= rule.find(x).any(0)
    return free
