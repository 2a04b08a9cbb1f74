"""The projection onto an L1 ball inside a box, in one sort."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_projection(change: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the nearest rows to `change` [n, d] whose L1 norm is at most eps and whose sizes are at most `room`.

    The answer is sign(u) min(max(|u| - level, 0), room) with the level at which the sizes add up to eps (Croce and
    Hein 2021, arXiv:2103.01208, proposition 2.2; without a box Duchi et al. 2008, figure 1). The sum is linear between
    the levels where a value leaves its room, |u| - room, and where it vanishes, |u|.
    """
    size = change.abs()
    room = torch.minimum(room, size)
    over = room.sum(1) > eps
    if not bool(over.any()):
        return change.sign() * room
    level = torch.zeros_like(size[:, 0])
    level[over] = _level(size[over], room[over], eps)
    return change.sign() * torch.minimum((size - level.unsqueeze(1)).clamp_min(0.0), room)


def _level(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """Return the level float[n] at which what is left of the sizes adds up to eps."""
    edges, order = torch.cat([size - room, size], 1).sort(dim=1)
    slopes = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1).gather(1, order).cumsum(1)
    # Between edges k and k + 1, slopes[k] values shrink: the sum falls by that much a unit of level.
    fallen = (slopes[:, :-1] * edges.diff(dim=1)).cumsum(1)
    left = torch.cat([room.sum(1, keepdim=True), room.sum(1, keepdim=True) - fallen], 1)
    place = ((left > eps).sum(1, keepdim=True) - 1).clamp_min(0)
    excess = left.gather(1, place) - eps
    return (edges.gather(1, place) + excess / slopes.gather(1, place).clamp_min(1.0)).squeeze(1)
