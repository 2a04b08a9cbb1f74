"""ResNet-18, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network
from titer.networks._resnet import resnet

if TYPE_CHECKING:
    from torch import nn


@network("resnet18", paper="He, Zhang, Ren, Sun 2016, arXiv:1512.03385, table 1")
def resnet18(*, width: Count = 16) -> Network:
    """ResNet-18 of MONAI for images and volumes; a 3x3 stem without pooling below 64 pixels, the paper's above.

    Args:
        width: channels of the first stage (64 in the paper).
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return resnet(shape, classes, block="basic", layers=(2, 2, 2, 2), width=width)

    return build
