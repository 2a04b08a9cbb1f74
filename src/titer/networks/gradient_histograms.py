"""A network for small sets of grey images: histograms of oriented gradients under a trained head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.errors import SpecError
from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_SMALLEST = 24


@network("gradient-histograms", paper="Dalal, Triggs 2005, 10.1109/CVPR.2005.177")
def gradient_histograms(*, width: Count = 512, dropout: float = 0.6) -> Network:
    """Histograms of oriented gradients, brightness and asymmetry, differentiable, then one hidden layer; grey images.

    It learns from some hundred images what a convolutional network needs thousands for. The numbers are computed
    inside the network, so that a white-box attack goes through them.

    Args:
        width: units of the hidden layer.
        dropout: share of the hidden layer that is dropped in training, and two fifths of it of the numbers.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3 or shape[0] != 1 or min(shape[1:]) < _SMALLEST:
            raise SpecError(
                f"network 'gradient-histograms' takes no rows of shape {shape}: allowed are grey images of at least "
                f"{_SMALLEST} x {_SMALLEST} pixels, [1, H, W]"
            )
        if not 0 <= dropout < 1:
            raise SpecError(f"network.dropout = {dropout:g} is not allowed: 0 or more, less than 1")
        from titer.networks._gradients import features
        from titer.networks._head import on_features

        return on_features(features, shape, classes, width=width, dropout=dropout, mirrored=True)

    return build
