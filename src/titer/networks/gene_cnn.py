"""A one-dimensional convolutional network over genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_KERNEL = 7
_POOLED = 32


@network("gene-cnn", paper="after Mostavi, Chiu, Huang, Chen 2020, 10.1186/s12920-020-0677-2 (1D-CNN)")
def gene_cnn(*, width: Count = 16) -> Network:
    """One-dimensional convolutions over the genes in the order of the matrix, pooling to 32 places, one linear layer.

    Neighbours in a matrix are no neighbours in the genome: what the layers share is a budget of weights.

    Args:
        width: channels of the first convolution; the second has twice as many.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:  # noqa: ARG001 - any number of genes
        from torch import nn

        return nn.Sequential(
            nn.Flatten(),
            nn.Unflatten(1, (1, -1)),
            nn.Conv1d(1, width, _KERNEL, stride=2, padding=_KERNEL // 2),
            nn.ReLU(),
            nn.Conv1d(width, 2 * width, _KERNEL, stride=2, padding=_KERNEL // 2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(_POOLED),
            nn.Flatten(),
            nn.Linear(2 * width * _POOLED, classes),
        )

    return build
