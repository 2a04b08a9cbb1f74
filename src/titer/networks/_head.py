"""A small trained head on fixed, differentiable features of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Features = Callable[[Tensor], Tensor]
_WIDEST = 4.0


class _Described(nn.Module):
    """Features as a layer without weights."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F] of x [N, C, H, W], in float32: half the digits would drown small spreads."""
        with torch.autocast(x.device.type, enabled=False):
            return self.features(x.float())

    def extra_repr(self) -> str:
        """Name the features."""
        return f"{self.features.__module__}.{self.features.__name__}"


class _Mirrored(nn.Module):
    """In training, each image is seen from either side: a lesion and a head have no left that matters here."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x [N, C, H, W], in training half of its rows mirrored."""
        if not self.training:
            return x
        turned = torch.rand(len(x), device=x.device) < 0.5
        return torch.where(turned.view(-1, 1, 1, 1), x.flip(3), x)


class _Soften(nn.Module):
    """Standardised numbers, outliers drawn in smoothly: a hard limit would hide their gradient."""

    def forward(self, z: Tensor) -> Tensor:
        """Return 4 tanh(z / 4)."""
        return _WIDEST * torch.tanh(z / _WIDEST)


def on_features(
    features: Features, shape: tuple[int, ...], classes: int, *, width: int, dropout: float, mirrored: bool
) -> nn.Module:
    """Return `features` of rows of `shape`, standardised by running moments, one hidden layer, `classes` logits.

    With `mirrored`, training sees half of the rows from the other side.
    """
    with torch.no_grad():
        count = features(torch.full((1, *shape), 0.5)).shape[1]
    return nn.Sequential(
        *([_Mirrored()] if mirrored else []),
        _Described(features),
        nn.BatchNorm1d(count, affine=False),
        _Soften(),
        nn.Dropout(0.4 * dropout),
        nn.Linear(count, width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(width, classes),
    )
