"""Steps to a plane: the smallest change of each norm that crosses a linearised boundary, inside the box."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from titer.core.threat import Bounds
from titer.threats.balls import peaked, per_row, to_units

_ROUNDS = 30
_SMALL = 1e-20


def step_to_plane(norm: str, normal: Tensor, gap: Tensor, scale: Tensor, room: Tensor | None = None) -> Tensor:
    """Return the smallest change, in raw values, that moves `gap` [N] along the plane's `normal` [N, ...].

    Hoelder's equality for the dual norm (Moosavi-Dezfooli et al. 2016, eq. 6 and 11): L2 moves along the normal, Linf
    along its signs, L1 along its largest entry, and L0 changes the fewest values. With `room` [N, ...], how far each
    value may go in raw numbers, it is the projection onto plane and box together (Croce and Hein 2020,
    arXiv:1907.02044, eq. 3). Where the box ends before the plane, every value goes to its end.
    """
    direction, peak = peaked(normal * scale)
    flat, way = direction.flatten(1), (gap.abs() / peak).unsqueeze(1)
    weight = flat.abs()
    most = way / weight.clamp_min(_SMALL)
    if room is not None:
        most = torch.minimum(most, to_units(room, scale).flatten(1))
    size = _SIZES[norm](weight, most, way)
    return per_row(gap.sign(), normal) * (size * flat.sign()).view_as(normal) * scale


def room(bounds: Bounds | None, x_adv: Tensor, direction: Tensor) -> Tensor | None:
    """Return how far each value of x_adv [N, ...] may follow `direction` in the box; None where there is no box."""
    if bounds is None:
        return None
    return torch.where(direction > 0, bounds[1] - x_adv, x_adv - bounds[0]).clamp_min(0.0)


def _level(weight: Tensor, share: Tensor, most: Tensor, way: Tensor) -> Tensor:
    """Return sizes min(level * share, most) with the level at which weight @ sizes = way.

    Values that are at their most leave the sum, and the level rises for the others. It only ever rises, so that a few
    rounds reach the exact one.
    """
    slope = weight * share
    full = torch.zeros_like(weight, dtype=torch.bool)
    for _ in range(_ROUNDS):
        walked = (weight * most * full).sum(1, keepdim=True)
        level = (way - walked) / (slope * ~full).sum(1, keepdim=True).clamp_min(_SMALL)
        now = full | (level * share > most)
        if bool((now == full).all()):
            break
        full = now
    return torch.where(full, most, torch.minimum(level * share, most))


def _in_turn(weight: Tensor, key: Tensor, most: Tensor, way: Tensor) -> Tensor:
    """Return sizes where values go to their most one after the other, the largest `key` first, until way is walked."""
    order = key.argsort(dim=1, descending=True)
    weight, most = weight.gather(1, order), most.gather(1, order)
    before = (weight * most).cumsum(1) - weight * most
    size = torch.minimum(((way - before) / weight.clamp_min(_SMALL)).clamp_min(0.0), most)
    return torch.zeros_like(size).scatter(1, order, size)


_SIZES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "l2": lambda weight, most, way: _level(weight, weight, most, way),
    "linf": lambda weight, most, way: _level(weight, torch.ones_like(weight), most, way),
    "l1": lambda weight, most, way: _in_turn(weight, weight, most, way),
    "l0": lambda weight, most, way: _in_turn(weight, weight * most, most, way),
}
