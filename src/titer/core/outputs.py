"""What a model's logits mean: one class of several, several findings, a value, or a mask of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Output = Literal["classes", "labels", "value", "mask"]
"""`classes`: logits [N, K], y int64[N]. `labels`: one logit a finding, [N, L], y int64[N, L] of 0 and 1. `value`:
a number in the label's own unit, [N, 1], y float32[N]. `mask`: a class for each pixel, [N, K, H, W], y int64[N, H, W],
where class 0 is the background.
"""
OUTPUTS: tuple[Output, ...] = ("classes", "labels", "value", "mask")

LARGEST_DICE_ERROR = 0.5
"""A mask is as it should be where its Dice is 1 - this or more."""


def predicted(output: Output, logits: Tensor) -> Tensor:
    """Return what is reported for each row, in the form of its y."""
    return _PREDICTED[output](logits)


def decided(output: Output, logits: Tensor) -> Tensor:
    """Return the decision alone in the form of logits: all that is seen under `access = "decision"`."""
    return as_logits(output, predicted(output, logits), logits.shape[1]).to(logits.dtype)


def as_logits(output: Output, reported: Tensor, width: int) -> Tensor:
    """Return what is reported, in the form of y, as logits float32[N, width, ...] that say the same and no more."""
    if output == "value":
        return reported.unsqueeze(1)
    if output == "labels":
        return torch.where(reported > 0, 1.0, -1.0)
    return functional.one_hot(reported, width).movedim(-1, 1).float()


def probabilities(output: Output, logits: Tensor) -> Tensor:
    """Return softmax, or the sigmoid of each finding; a value is its own."""
    return _PROBABILITIES[output](logits)


def errors(output: Output, reported: Tensor, y: Tensor) -> Tensor:
    """Return float[N], how far what is reported is from y.

    Classes: 1 where it is another. Findings: how many are wrong. A value: the absolute error in its unit. A mask: 1 -
    Dice of the foreground, where a pixel of a wrong foreground class is no overlap; 0 where both masks are empty.
    """
    return _ERRORS[output](reported, y)


def wrong(output: Output, reported: Tensor, y: Tensor, *, tolerance: float | None = None) -> Tensor:
    """Return bool[N]: not as it should be; a value may differ by `tolerance`, a mask's Dice be 0.5 or more."""
    allowed = {"value": tolerance or 0.0, "mask": LARGEST_DICE_ERROR}
    return errors(output, reported, y) > allowed.get(output, 0.0)


def dice(mask: Tensor, y: Tensor) -> Tensor:
    """Return float[N], twice the overlap of the foregrounds of int64[N, H, W] masks over the sum of their areas."""
    mask, y = mask.flatten(1), y.flatten(1)
    overlap = ((mask == y) & (y > 0)).sum(1)
    areas = (mask > 0).sum(1) + (y > 0).sum(1)
    # Two empty masks agree: their sum of areas is 0.
    return torch.where(areas > 0, 2.0 * overlap / areas.clamp_min(1), 1.0)


_PREDICTED: dict[Output, Callable[[Tensor], Tensor]] = {
    "classes": lambda logits: logits.argmax(1),
    "labels": lambda logits: (logits > 0).long(),
    "value": lambda logits: logits.squeeze(1),
    "mask": lambda logits: logits.argmax(1),
}
_PROBABILITIES: dict[Output, Callable[[Tensor], Tensor]] = {
    "classes": lambda logits: logits.softmax(1),
    "labels": torch.sigmoid,
    "value": lambda logits: logits,
    "mask": lambda logits: logits.softmax(1),
}
_ERRORS: dict[Output, Callable[[Tensor, Tensor], Tensor]] = {
    "classes": lambda reported, y: (reported != y).float(),
    "labels": lambda reported, y: (reported != y).float().sum(1),
    "value": lambda reported, y: (reported - y).abs(),
    "mask": lambda reported, y: 1.0 - dice(reported, y),
}
