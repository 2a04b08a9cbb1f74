"""MONAI's ResNet with the stem that the size of the rows asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from titer.core.extras import need

if TYPE_CHECKING:
    from torch import nn

_SMALL_IMAGE = 64
_STAGES = 4


def resnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    block: Literal["basic", "bottleneck"],
    layers: tuple[int, int, int, int],
    width: int,
    small: bool | None = None,
) -> nn.Module:
    """Return a ResNet for rows of `shape` [C, H, W] or [C, D, H, W] whose first stage has `width` channels.

    With `small` the stem is 3x3 without pooling, else the paper's 7x7 with pooling; by default small below 64 pixels.
    """
    nets = need("monai.networks.nets", "imaging")
    plain = min(shape[1:]) < _SMALL_IMAGE if small is None else small
    return cast(
        "nn.Module",
        nets.ResNet(
            block=block,
            layers=list(layers),
            block_inplanes=[width * 2**stage for stage in range(_STAGES)],
            spatial_dims=len(shape) - 1,
            n_input_channels=shape[0],
            num_classes=classes,
            conv1_t_size=3 if plain else 7,
            conv1_t_stride=2,  # MONAI's own default of 1 is not the paper's, and costs four times as much
            no_max_pool=plain,
        ),
    )
