"""A small convolutional network for images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn


_POOLED = 4


@network("small-cnn")
def small_cnn(*, width: Count = 16) -> Network:
    """Three 3x3 convolutions, two of them strided, pooling to 4x4, one linear layer; any image size from 8 pixels.

    Args:
        width: channels of the first convolution; the next two have twice and four times as many.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        from torch import nn

        layers: list[nn.Module] = []
        for before, after, stride in ((shape[0], width, 2), (width, 2 * width, 1), (2 * width, 4 * width, 2)):
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]
        pooled = 4 * width * _POOLED * _POOLED
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten(), nn.Linear(pooled, classes))

    return build
