"""U-Net, MONAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from titer.core.extras import need
from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn


@network("unet", paper="Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, figure 1; residual form of arXiv:1811.12596")
def unet(*, width: Count = 8, depth: Count = 3) -> Network:
    """U-Net of MONAI for masks: one logit a class and pixel, for images of any size.

    Args:
        width: channels of the first stage; each next one has twice as many.
        depth: stages, each of half the resolution of the one before.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        nets = need("monai.networks.nets", "imaging")
        inner = nets.UNet(
            spatial_dims=len(shape) - 1,
            in_channels=shape[0],
            out_channels=classes,
            channels=[width * 2**stage for stage in range(depth + 1)],
            strides=[2] * depth,
            num_res_units=1,
            act="RELU",
            norm="BATCH",
        )
        return _padded(cast("nn.Module", inner), shape[1:], 2**depth)

    return build


def _padded(net: nn.Module, sides: tuple[int, ...], multiple: int) -> nn.Module:
    """Return the network for images with sides of any length: its halvings need multiples, so edges are repeated."""
    from torch import Tensor, nn
    from torch.nn import functional

    lacking = [-side % multiple for side in sides]
    ends = [end for side in reversed(lacking) for end in (0, side)]
    if not any(lacking):
        return net

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            """Return logits [N, K, ...] of the size of x [N, C, ...]."""
            logits: Tensor = self.net(functional.pad(x, ends, mode="replicate"))
            for dim, side in enumerate(sides, start=2):
                logits = logits.narrow(dim, 0, side)
            return logits

    return Padded()
