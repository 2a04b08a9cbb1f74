"""How far an explanation moved: cosine, overlap of the strongest values, share inside a lesion; and overlays."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.engine.attention import likeness

_SMALLEST = 1e-12


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return float[N], the cosine of two attributions [N, ...]: 1 the same, 0 nothing in common; 1 where both are 0."""
    _same_shape(a, b)
    return likeness(functional.normalize(a.flatten(1), dim=1), functional.normalize(b.flatten(1), dim=1))


def top_overlap(a: Tensor, b: Tensor, share: float = 0.1) -> Tensor:
    """Return float[N], the share of the strongest values of `a` that are among the strongest of `b` too.

    Strong is large, whatever the sign; `share` of the values count, at least one. By chance alone it is `share`.

    Raises:
        Incompatible: shapes that differ, or a share that is not between 0 and 1.
    """
    _same_shape(a, b)
    if not 0 < share <= 1:
        raise Incompatible(f"share = {share:g}: allowed is more than 0 and at most 1")
    count = max(1, round(share * a[0].numel())) if len(a) else 1
    tops = [
        torch.zeros_like(one.flatten(1)).scatter(1, one.flatten(1).abs().topk(count).indices, 1.0) for one in (a, b)
    ]
    return (tops[0] * tops[1]).sum(1) / count


def share_inside(attribution: Tensor, lesion: Tensor) -> Tensor:
    """Return float[N], how much of an attribution [N, C, ...] lies in the lesion's mask bool[N, ...]; 0 without any."""
    if lesion.shape != (attribution.shape[0], *attribution.shape[2:]):
        raise Incompatible(f"lesion masks {tuple(lesion.shape)} do not fit attributions {tuple(attribution.shape)}")
    size = attribution.abs().sum(1).flatten(1)
    return (size * lesion.flatten(1).to(size)).sum(1) / size.sum(1).clamp_min(_SMALLEST)


def overlay(image: Tensor, attribution: Tensor, value_range: tuple[float, float], strength: float = 0.6) -> Tensor:
    """Return uint8[H, W, 3]: the image [C, H, W] in grey, red where values speak for the class, blue where against.

    `attribution` is shaped as the image; its channels are added up, and its largest value has the full `strength`.

    Raises:
        Incompatible: no 2-D image, or an attribution of another shape.
    """
    _same_shape(image, attribution)
    if image.dim() != 3:
        raise Incompatible(f"an overlay takes an image [C, H, W], not a row of shape {tuple(image.shape)}")
    low, high = value_range
    grey = ((image.mean(0) - low) / (high - low)).clamp(0, 1)
    heat = attribution.sum(0)
    heat = strength * heat / heat.abs().max().clamp_min(_SMALLEST)
    red, blue = heat.clamp_min(0), (-heat).clamp_min(0)
    faded = grey * (1 - red - blue)
    return (255 * torch.stack([faded + red, faded, faded + blue], dim=-1)).round().to(torch.uint8)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise Incompatible(f"attributions of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
