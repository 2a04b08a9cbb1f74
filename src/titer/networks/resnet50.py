"""ResNet-50, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from titer.core.extras import need
from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_SMALL_IMAGE = 64


@network("resnet50", paper="He, Zhang, Ren, Sun 2016, arXiv:1512.03385, table 1")
def resnet50(*, width: Count = 64) -> Network:
    """ResNet-50 of MONAI for images and volumes; a 3x3 stem without pooling below 64 pixels, the paper's above.

    Args:
        width: channels of the first stage's bottlenecks (64 in the paper).
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        nets = need("monai.networks.nets", "imaging")
        small = min(shape[1:]) < _SMALL_IMAGE
        return cast(
            "nn.Module",
            nets.ResNet(
                block="bottleneck",
                layers=[3, 4, 6, 3],
                block_inplanes=[width, 2 * width, 4 * width, 8 * width],
                spatial_dims=len(shape) - 1,
                n_input_channels=shape[0],
                num_classes=classes,
                conv1_t_size=3 if small else 7,
                conv1_t_stride=2,  # MONAI's own default of 1 is not the paper's, and costs four times as much
                no_max_pool=small,
            ),
        )

    return build
