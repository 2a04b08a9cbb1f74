"""DenseNet-121, MONAI's."""

from __future__ import annotations

from typing import cast

from torch import nn

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.plugins import Count, network
from titer.core.protocols import Network

_SMALLEST, _ENLARGED = 16, 32


@network("densenet121", paper="Huang, Liu, van der Maaten, Weinberger 2017, arXiv:1608.06993, table 1")
def densenet121(*, growth: Count = 32) -> Network:
    """DenseNet-121 of MONAI for images and volumes from 16 pixels.

    It halves an image five times, so that one with a side below 32 pixels is first enlarged (linear interpolation).

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
        dense = nets.DenseNet121(
            spatial_dims=len(shape) - 1,
            in_channels=shape[0],
            out_channels=classes,
            init_features=2 * growth,
            growth_rate=growth,
        )
        return _enlarged(cast("nn.Module", dense), shape[1:])

    return build


def _enlarged(net: nn.Module, sides: tuple[int, ...]) -> nn.Module:
    if min(sides) >= _ENLARGED:
        return net
    size = tuple(max(side, _ENLARGED) for side in sides)
    return nn.Sequential(nn.Upsample(size=size, mode="bilinear" if len(sides) == 2 else "trilinear"), net)
