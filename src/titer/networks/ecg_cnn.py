"""A small convolutional network for signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn


_POOLED = 8
_KERNELS = (7, 5, 5)


@network("ecg-cnn")
def ecg_cnn(*, width: Count = 16) -> Network:
    """Three strided 1-D convolutions, pooling to 8 places, one linear layer; for signals [leads, samples].

    Args:
        width: channels of the first convolution; the next two have twice as many.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        from torch import nn

        layers: list[nn.Module] = []
        before = shape[0]
        for channels, kernel in zip((width, 2 * width, 2 * width), _KERNELS, strict=True):
            layers += [nn.Conv1d(before, channels, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
            before = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(_POOLED), nn.Flatten(), nn.Linear(before * _POOLED, classes))

    return build
