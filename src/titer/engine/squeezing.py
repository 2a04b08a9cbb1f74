"""Squeezed copies of an input: fewer levels, and the median of neighbours (Xu, Evans, Qi 2018, arXiv:1704.01155, III).

Rounding has no slope, so it passes gradients straight through (BPDA: Athalye et al. 2018, arXiv:1802.00420, section
4.1); the median has one, that of the middle value.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def fewer_levels(x: Tensor, bits: int, low: Tensor, high: Tensor) -> Tensor:
    """Return x [N, ...] on 2^bits levels between `low` and `high` (raw, broadcastable); the gradient is passed through.

    Values beyond the ends stay where they are, and so do features whose ends are equal.
    """
    steps, width = 2**bits - 1, high - low
    varies = width > 0
    share = (x - low) / torch.where(varies, width, torch.ones_like(width))
    rounded = low + (share * steps).round() / steps * width
    inside = varies & (x >= low) & (x <= high)
    return x + (torch.where(inside, rounded, x) - x).detach()


def median(x: Tensor, window: int) -> Tensor:
    """Return x [N, C, ...] with the median over `window` places along each side; edges are repeated."""
    sides = x.dim() - 2
    before, after = (window - 1) // 2, window // 2
    around = functional.pad(x, [before, after] * sides, mode="replicate")
    for side in range(sides):
        around = around.unfold(2 + side, window, 1)
    return around.flatten(x.dim()).median(-1).values


def ends(x: Tensor, value_range: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return the range of the data, or else of each feature of the rows x [N, ...]: what levels lie between."""
    if value_range is not None:
        low, high = (torch.tensor(end, dtype=x.dtype, device=x.device) for end in value_range)
        return low, high
    return x.amin(0), x.amax(0)
