"""Domains of whole numbers: attacks walk between them, and every look is at the whole numbers near by.

A short step from a whole number would be rounded back to it, for ever, and a budget spent on it would pass for
robustness. So the walk keeps its fractions, and the gradient at the rounded input stands for theirs: the straight-
through estimator (Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 2.3), or BPDA (Athalye et al. 2018).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from titer.core.threat import Threat
from titer.threats.balls import per_row

_ROUNDING = 1e-5


def rounds(threat: Threat) -> bool:
    """Return whether a rule of the domain asks for whole numbers."""
    return any(getattr(rule, "rounds", False) for rule in threat.domain)


def relaxed(threat: Threat) -> Threat:
    """Return the threat without the rules that ask for whole numbers: where attacks walk."""
    kept = tuple(rule for rule in threat.domain if not getattr(rule, "rounds", False))
    return replace(threat, domain=kept)


def settled(threat: Threat, x_adv: Tensor, x: Tensor, *, free: bool) -> Tensor:
    """Return the whole numbers near x_adv [N, ...], inside the domain and, unless `free`, inside the budget.

    The nearest ones; where they leave the threat, those next to them on the clean row's side, which no ball and no box
    excludes.
    """
    near = _ruled(threat, x_adv, x)
    if free:
        return near
    outside = ~threat.contains(near, x)
    if not bool(outside.any()):
        return near
    step = max(getattr(rule, "step", 1.0) for rule in threat.domain if getattr(rule, "rounds", False))
    short = _ruled(threat, x + ((x_adv - x) / step * (1 + _ROUNDING)).trunc() * step, x)
    near = torch.where(per_row(outside, near), short, near)
    outside = (~threat.contains(near, x)).nonzero().flatten()
    return near.index_copy(0, outside, threat.project(near[outside], x[outside])) if len(outside) else near


def _ruled(threat: Threat, x_adv: Tensor, x: Tensor) -> Tensor:
    for rule in threat.domain:
        x_adv = rule.project(x_adv, x)
    return x_adv
