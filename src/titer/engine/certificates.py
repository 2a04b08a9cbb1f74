"""Rows that no attack can win, proven cheaply beforehand: for networks that are a stack of linear layers and ReLUs.

Linear bounds are propagated backwards through the layers (CROWN: Zhang, Weng, Chen, Hsieh, Daniel 2018,
arXiv:1811.00866, section 3.2 and table 1, adaptive lower slopes). The threat is widened to a box, so the proof holds
for every norm and rule; what is not proven may still be safe, and is attacked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from titer.core.model import Model
from titer.core.threat import Threat

_SLACK = 1e-4
_WIDEST = 512
_PASSED = (nn.Flatten, nn.Dropout, nn.Identity)


class _Layer(NamedTuple):
    weight: Tensor
    bias: Tensor


class _Interval(NamedTuple):
    low: Tensor
    high: Tensor


def certified(model: Model, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Return bool[N]: the prediction is y at every input of the threat around `x` [N, ...]; False where unknown."""
    nothing = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    layers = None if model.net is None or model.rebuild is None else _layers(model.net)
    if layers is None or model.output != "classes" or model.draw is not None or model.surrogate is not None:
        return nothing
    if not len(x) or model.access != "gradient":
        return nothing
    box = _box(model, x, threat)
    if not bool((box.low.isfinite() & box.high.isfinite()).all()):
        return nothing
    # The lead of the true class over every other, as one more linear layer: [N, K, K], its own row is zero.
    own = nn.functional.one_hot(y, layers[-1].weight.shape[0]).to(x.dtype)
    lead = own.unsqueeze(1) - torch.eye(own.shape[1], dtype=x.dtype, device=x.device)
    lowest = _lowest(lead, layers, _inner(layers, box), box).masked_fill(own.bool(), float("inf"))
    return (lowest > _SLACK).all(1)


def _layers(net: nn.Module) -> list[_Layer] | None:
    """Return the linear layers of a stack with a ReLU between each two, or None for any other network."""
    parts = [part for part in net.modules() if not list(part.children()) and not isinstance(part, _PASSED)]
    if any(not isinstance(part, nn.Sequential) for part in net.modules() if list(part.children())):
        return None
    linear, between = parts[::2], parts[1::2]
    if not parts or len(parts) % 2 == 0 or not all(isinstance(part, nn.ReLU) for part in between):
        return None
    layers = [
        _Layer(part.weight, torch.zeros_like(part.weight[:, 0]) if part.bias is None else part.bias)
        for part in linear
        if isinstance(part, nn.Linear)
    ]
    narrow = all(layer.weight.shape[0] <= _WIDEST for layer in layers)
    return layers if len(layers) == len(linear) and narrow else None


def _box(model: Model, x: Tensor, threat: Threat) -> _Interval:
    """Return the box around the threat as the first layer sees it: preprocessing is monotone in each value."""
    reach = threat.budget.eps * threat.budget.scaled(x) if threat.budget.norm != "l0" else torch.full_like(x, torch.inf)
    low, high = x - reach, x + reach
    bounds = threat.bounds(x)
    if bounds is not None:
        low, high = low.maximum(bounds[0]).minimum(x), high.minimum(bounds[1]).maximum(x)
    seen = _Capture()
    assert model.rebuild is not None
    model.rebuild(seen)(low)
    at_low = seen.input
    model.rebuild(seen)(high)
    return _Interval(at_low.minimum(seen.input).flatten(1), at_low.maximum(seen.input).flatten(1))


class _Capture(nn.Module):
    """Keeps what it is given."""

    input: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.input = x.detach()
        return x.flatten(1)[:, :1]


def _inner(layers: list[_Layer], box: _Interval) -> list[_Interval]:
    """Return the bounds of what enters each ReLU, one layer after another."""
    found: list[_Interval] = []
    for depth in range(1, len(layers)):
        weight = layers[depth - 1].weight.expand(len(box.low), -1, -1)
        low = _lowest(weight, layers[: depth - 1], found, box, layers[depth - 1].bias)
        high = -_lowest(-weight, layers[: depth - 1], found, box, -layers[depth - 1].bias)
        found.append(_Interval(low, high))
    return found


def _lowest(
    slope: Tensor, layers: list[_Layer], inner: list[_Interval], box: _Interval, bias: Tensor | None = None
) -> Tensor:
    """Return the least value float[n, m] of `slope` [n, m, width] times what the layers put out, plus `bias`.

    Without `bias` the last of `layers` is a linear layer without a ReLU behind it; with it, each has one.
    """
    least = torch.zeros_like(slope[..., 0]) if bias is None else bias.expand(slope.shape[:2])
    for depth in reversed(range(len(layers))):
        if bias is not None or depth < len(layers) - 1:
            slope, offset = _through_relu(slope, inner[depth])
            least = least + offset
        least = least + slope @ layers[depth].bias
        slope = slope @ layers[depth].weight
    low, high = box.low.unsqueeze(-1), box.high.unsqueeze(-1)
    return least + (slope.clamp_min(0) @ low + slope.clamp_max(0) @ high).squeeze(-1)


def _through_relu(slope: Tensor, before: _Interval) -> tuple[Tensor, Tensor]:
    """Return slope and offset below `slope` times relu(z), for z in its interval (table 1)."""
    low, high = before.low.unsqueeze(1), before.high.unsqueeze(1)
    steep = (high.clamp_min(0) / (high.clamp_min(0) - low.clamp_max(0)).clamp_min(1e-12)).clamp_max(1.0)
    flat = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, (high > -low).to(slope.dtype)))
    rising, falling = slope.clamp_min(0), slope.clamp_max(0)
    offset = (falling * (-low.clamp_max(0) * steep)).sum(-1)
    return rising * flat + falling * steep, offset
