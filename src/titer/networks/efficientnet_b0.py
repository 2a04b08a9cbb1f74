"""EfficientNet-B0, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.plugins import network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_SMALLEST = 33


@network("efficientnet-b0", paper="Tan, Le 2019, arXiv:1905.11946, table 1")
def efficientnet_b0() -> Network:
    """EfficientNet-B0 of MONAI for images and volumes above 32 pixels, with weights drawn anew."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        nets = need("monai.networks.nets", "imaging")
        if min(shape[1:]) < _SMALLEST:
            raise SpecError(
                f"network 'efficientnet-b0' takes no rows of shape {shape}: it halves the image five times, and "
                f"allowed are sides of at least {_SMALLEST} pixels"
            )
        return cast(
            "nn.Module",
            nets.EfficientNetBN(
                "efficientnet-b0",
                pretrained=False,
                spatial_dims=len(shape) - 1,
                in_channels=shape[0],
                num_classes=classes,
            ),
        )

    return build
