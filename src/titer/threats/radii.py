"""Projections onto norm balls where each row has a radius of its own, on changes in units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def shortened(norm: str, units: Tensor, radius: Tensor) -> Tensor:
    """Return the nearest changes to `units` [N, ...] whose norm is at most `radius` float[N]; in l0 a count."""
    return _SHORTENED[norm](units.flatten(1), radius.unsqueeze(1)).view_as(units)


def _linf(flat: Tensor, radius: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(flat, radius), -radius)


def _l2(flat: Tensor, radius: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    shorter: Tensor = flat * (radius / length.clamp_min(1e-30)).clamp_max(1.0)
    return shorter


def _l1(flat: Tensor, radius: Tensor) -> Tensor:
    """Soft-thresholding at the level of Duchi et al. 2008, figure 1."""
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(1) - radius) / torch.arange(1, flat.shape[1] + 1).to(flat)
    count = (ordered > excess).sum(1, keepdim=True).clamp_min(1)
    level = excess.gather(1, count - 1).clamp_min(0.0)
    return flat.sign() * (size - level).clamp_min(0.0)


def _l0(flat: Tensor, radius: Tensor) -> Tensor:
    """Keep the largest changes, as many as the radius says."""
    most = min(max(int(radius.max()), 1), flat.shape[1])
    places = flat.abs().topk(most, dim=1).indices
    kept = torch.arange(1, most + 1, device=flat.device) <= radius
    return flat * torch.zeros_like(flat).scatter(1, places, kept.to(flat))


_SHORTENED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"linf": _linf, "l2": _l2, "l1": _l1, "l0": _l0}
