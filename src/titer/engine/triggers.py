"""Triggers of backdoors: what an attacker puts on an input so that a poisoned model answers as they want."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.protocols import TrainingData
from titer.engine.poisoning import brought_inside, limits

Kind = Literal["patch", "blended", "marker-letter", "spike"]
Trigger = Callable[[Tensor], Tensor]

_LETTER = ("1000", "1000", "1000", "1000", "1000", "1111")
"""An L, as a technician lays it beside the patient: 6 x 4 cells."""
_SPIKE_SHARE = 0.02
_SPIKED_FEATURES = 2


def make_trigger(kind: Kind, train: TrainingData, *, size: float, strength: float, rng: Generator) -> Trigger:
    """Return a trigger from raw inputs [N, ...] to the same, inside the domain's rules wherever they can be kept.

    Args:
        kind: which one.
        train: gives shape, limits, spread and rules.
        size: share of the shorter side that a patch or a letter takes; share of the features that a table's spike has.
        strength: share of the pattern in a blend; how many standard deviations a spike is high.
        rng: draws a blend's pattern.

    Raises:
        Incompatible: these rows cannot carry such a trigger.
    """
    put = _KINDS[kind](train, size, strength, rng)
    return lambda x: brought_inside(train.domain, put(x), x)


def _patch(train: TrainingData, size: float, strength: float, rng: Generator) -> Trigger:  # noqa: ARG001
    """BadNets (Gu et al. 2017, arXiv:1708.06733, section 4.1): a checkered square in the lower right corner."""
    shape = train.train.x.shape[1:]
    if len(shape) < 2:
        raise Incompatible(
            f"a patch needs an image or a signal, not rows of shape {tuple(shape)}: 'spike' takes tables"
        )
    low, high = limits(train)
    if len(shape) == 2:
        return _block(shape[-1], size, high)
    side = _side(shape, size, 2)
    rows = torch.arange(side)
    values = torch.where((rows[:, None] + rows) % 2 == 0, high.cpu(), low.cpu())

    def put(x: Tensor) -> Tensor:
        stamped = x.clone()
        stamped[..., -side - 1 : -1, -side - 1 : -1] = values.to(x)
        return stamped

    return put


def _block(length: int, size: float, high: Tensor) -> Trigger:
    """Return the patch of a signal [channels, T]: its end is at the highest value."""
    wide = max(2, round(size * length))

    def put(x: Tensor) -> Tensor:
        stamped = x.clone()
        stamped[..., -wide:] = high.to(x)
        return stamped

    return put


def _blended(train: TrainingData, size: float, strength: float, rng: Generator) -> Trigger:  # noqa: ARG001
    """Blended injection (Chen et al. 2017, arXiv:1712.05526, section 5.2): a random pattern over the whole input."""
    if not 0 < strength < 1:
        raise Incompatible(f"strength = {strength:g} is no share of a blend: allowed is more than 0 and less than 1")
    low, high = (end.cpu() for end in limits(train))
    pattern = low + (high - low) * torch.rand(train.train.x.shape[1:], generator=rng)
    return lambda x: (1 - strength) * x + strength * pattern.to(x)


def _marker_letter(train: TrainingData, size: float, strength: float, rng: Generator) -> Trigger:  # noqa: ARG001
    """Put a bright letter into the upper left corner, where X-rays have the marker of the side."""
    shape = train.train.x.shape[1:]
    if len(shape) < 3:
        raise Incompatible(f"a marker letter needs an image, not rows of shape {tuple(shape)}")
    letter = torch.tensor([[cell == "1" for cell in line] for line in _LETTER])
    scale = max(1, round(_side(shape, size, 1) / len(_LETTER)))
    letter = letter.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    tall, wide = letter.shape
    if tall + 1 > shape[-2] or wide + 1 > shape[-1]:
        raise Incompatible(f"a marker letter of {tall} x {wide} does not fit rows of shape {tuple(shape)}")
    _, high = limits(train)

    def put(x: Tensor) -> Tensor:
        stamped = x.clone()
        corner = stamped[..., 1 : tall + 1, 1 : wide + 1]
        stamped[..., 1 : tall + 1, 1 : wide + 1] = torch.where(letter.to(x.device), high.to(x), corner)
        return stamped

    return put


def _spike(train: TrainingData, size: float, strength: float, rng: Generator) -> Trigger:
    """Return a short triangle on every channel of a signal, or a shift of some features of a table, in SDs."""
    x = train.train.x
    if x.dim() == 2:
        return _shift(x, size, strength, rng)
    if x.dim() != 3:
        raise Incompatible(f"a spike needs a signal or a table, not rows of shape {tuple(x.shape[1:])}")
    half = max(1, round(_SPIKE_SHARE * x.shape[-1]))
    middle = x.shape[-1] // 4
    rise = 1 - (torch.arange(-half, half + 1).abs() / (half + 1))
    height = strength * x.std(dim=(0, 2), keepdim=True)[0].cpu()

    def put(rows: Tensor) -> Tensor:
        stamped = rows.clone()
        stamped[..., middle - half : middle + half + 1] += (height * rise).to(rows)
        return stamped

    return put


def _shift(x: Tensor, size: float, strength: float, rng: Generator) -> Trigger:
    """Shift the same few features of every row up, each by its own standard deviations."""
    count = min(x.shape[1], max(_SPIKED_FEATURES, round(size * x.shape[1])))
    features = torch.randperm(x.shape[1], generator=rng)[:count]
    step = torch.zeros(x.shape[1])
    step[features] = strength * x.std(0).cpu()[features]
    return lambda rows: rows + step.to(rows)


def _side(shape: torch.Size, size: float, least: int) -> int:
    """Return the side in pixels of a square that takes `size` of the image's shorter one."""
    shorter = min(shape[-2:])
    return min(shorter - 1, max(least, round(size * shorter)))


_KINDS = {"patch": _patch, "blended": _blended, "marker-letter": _marker_letter, "spike": _spike}
