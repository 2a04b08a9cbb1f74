"""DenseNet-121, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_SMALLEST = 32


@network("densenet121", paper="Huang, Liu, van der Maaten, Weinberger 2017, arXiv:1608.06993, table 1")
def densenet121(*, growth: Count = 32) -> Network:
    """DenseNet-121 of MONAI for images and volumes from 32 pixels.

    Args:
        growth: channels that each layer adds (32 in the paper); the stem has twice as many.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        nets = need("monai.networks.nets", "imaging")
        if min(shape[1:]) < _SMALLEST:
            raise SpecError(
                f"network 'densenet121' takes no rows of shape {shape}: it halves the image five times, and allowed "
                f"are sides of at least {_SMALLEST} pixels"
            )
        return cast(
            "nn.Module",
            nets.DenseNet121(
                spatial_dims=len(shape) - 1,
                in_channels=shape[0],
                out_channels=classes,
                init_features=2 * growth,
                growth_rate=growth,
            ),
        )

    return build
