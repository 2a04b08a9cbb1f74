"""A network for dermoscopic images that looks at what dermatologists look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.errors import SpecError
from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_COLOURS = 3
_SMALLEST = 16


@network("dermoscopy", paper="ABCD rule: Nachbar et al. 1994, 10.1016/S0190-9622(94)70061-3; as region statistics")
def dermoscopy(*, width: Count = 256, dropout: float = 0.5) -> Network:
    """Colour, border, asymmetry and texture of the lesion as differentiable numbers, then one hidden layer.

    A few thousand images teach a small convolutional network little of melanoma; these numbers carry what is known of
    it. They are computed inside the network, so that a white-box attack goes through them.

    Args:
        width: units of the hidden layer.
        dropout: share of the hidden layer that is dropped in training, and two fifths of it of the numbers.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3 or shape[0] != _COLOURS or min(shape[1:]) < _SMALLEST:
            raise SpecError(
                f"network 'dermoscopy' takes no rows of shape {shape}: allowed are colour images of at least "
                f"{_SMALLEST} x {_SMALLEST} pixels, [3, H, W]"
            )
        if not 0 <= dropout < 1:
            raise SpecError(f"network.dropout = {dropout:g} is not allowed: 0 or more, less than 1")
        from titer.networks._dermoscopy import features
        from titer.networks._head import on_features

        return on_features(features, shape, classes, width=width, dropout=dropout, mirrored=False)

    return build
