"""How much room the rules leave each value: the limits of every box, and what no rule holds fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.threat import Threat
from titer.threats.rules import Box, MutableMask


def limits(threat: Threat, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value allowed, each shaped as one row of x [N, ...]; infinite without a box."""
    low, high = torch.full_like(x[0], -float("inf")), torch.full_like(x[0], float("inf"))
    for rule in threat.domain:
        if isinstance(rule, Box):
            low = torch.maximum(low, torch.as_tensor(rule.low).to(low))
            high = torch.minimum(high, torch.as_tensor(rule.high).to(high))
    return low, high


def may_change(threat: Threat, x: Tensor) -> Tensor:
    """Return bool, shaped as one row of x [N, ...]: under every mask, and of a scale that is not 0."""
    free = (threat.budget.scaled(x) > 0).expand_as(x[0]).clone()
    for rule in threat.domain:
        if isinstance(rule, MutableMask):
            free &= rule.mask.to(free.device)
    return free
