"""Losses that attacks climb towards a goal, beside the goal's own."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.outputs import Output
from titer.core.threat import Goal

_SMALLEST = 1e-12
_DLR_CLASSES, _TARGETED_CLASSES = 3, 4


def difference_of_logits_ratio(goal: Goal, output: Output, logits: Tensor, y: Tensor) -> Tensor:
    """Return the goal's margin over z_(1) - z_(3), float[N] (DLR: Croce and Hein 2020, arXiv:2003.01690, eq. 6).

    The ratio takes away how confident the model is, and how far it scales its logits. It is undefined below three
    classes: there, and where the output is no single class, this is the margin itself.
    """
    margin = goal.margin(logits, y)
    if output != "classes" or logits.shape[1] < _DLR_CLASSES:
        return margin
    top = logits.topk(_DLR_CLASSES, dim=1).values
    return margin / (top[:, 0] - top[:, 2]).clamp_min(_SMALLEST)


def targeted_ratio(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return (z_t - z_y) over z_(1) - (z_(3) + z_(4)) / 2, float[N], for classes `target` int64[N] (same, eq. 7).

    It is undefined below four classes: there it is the lead of the target alone.
    """
    lead = (logits.gather(1, target.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)
    if logits.shape[1] < _TARGETED_CLASSES:
        return lead
    top = logits.topk(_TARGETED_CLASSES, dim=1).values
    return lead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(_SMALLEST)


def rival(logits: Tensor, y: Tensor, rank: int) -> Tensor:
    """Return the class that comes at `rank` (0 is the likeliest) among those which are not y, int64[N]."""
    others = logits.scatter(1, y.unsqueeze(1), float("-inf"))
    order: Tensor = torch.argsort(others, dim=1, descending=True)
    return order[:, rank % (logits.shape[1] - 1)]
