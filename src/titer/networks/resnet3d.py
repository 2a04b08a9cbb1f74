"""A 3-D ResNet for volumes, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.errors import SpecError
from titer.core.plugins import Count, network
from titer.core.protocols import Network
from titer.networks._resnet import resnet

if TYPE_CHECKING:
    from torch import nn

_AXES = 4


@network("resnet3d", paper="Hara, Kataoka, Satoh 2018, arXiv:1711.09577, table 1")
def resnet3d(*, width: Count = 8) -> Network:
    """ResNet-10 of MONAI for volumes [C, D, H, W] of any size: 3x3x3 kernels, a stem that halves each side once.

    Args:
        width: channels of the first stage.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != _AXES:
            raise SpecError(
                f"network 'resnet3d' takes no rows of shape {shape}: allowed are volumes, [channels, D, H, W]"
            )
        return resnet(shape, classes, block="basic", layers=(1, 1, 1, 1), width=width, small=True)

    return build
