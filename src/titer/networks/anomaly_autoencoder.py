"""A convolutional autoencoder of normal images: what it cannot draw again is an anomaly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn

_KERNEL = 4
_SMALLEST = 1e-12


@network("anomaly-autoencoder", paper="Sakurada, Yairi 2014, 10.1145/2689746.2689747, section 3; error of the edges")
def anomaly_autoencoder(*, code: Count = 16, width: Count = 16) -> Network:
    """Convolutional autoencoder with two logits, normal and anomaly, from its reconstruction error and a threshold.

    The error is that of the edges, as a share of all the image's edges: errors of grey levels follow the exposure. The
    network is trained to draw the rows of the first class again, and of no other; the threshold is that of the best
    balanced accuracy on the validation part.

    Args:
        code: values that an image is narrowed to.
        width: channels of the first convolution; the second has twice as many.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return _autoencoder(shape, classes, code, width)

    return build


def _autoencoder(shape: tuple[int, ...], classes: int, code: int, width: int) -> nn.Module:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    if classes != 2 or len(shape) != 3:
        raise ValueError(f"it tells two classes of images [C, H, W] apart, not {classes} of {shape}")
    channels, sides = shape[0], tuple(shape[1:])
    halves = [tuple(-(-side // 2**i) for side in sides) for i in (0, 1, 2)]
    flat = 2 * width * halves[2][0] * halves[2][1]

    class Autoencoder(nn.Module):
        threshold: Tensor
        sharpness: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1)
            self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
            self.narrow, self.wide = nn.Linear(flat, code), nn.Linear(code, flat)
            self.third = nn.Conv2d(2 * width, width, 3, padding=1)
            self.last = nn.Conv2d(width, channels, 3, padding=1)
            self.register_buffer("threshold", torch.zeros(()))
            self.register_buffer("sharpness", torch.ones(()))

        def reconstructed(self, x: Tensor) -> Tensor:
            """Return images [N, C, H, W] as they are drawn again from their code."""
            small = functional.relu(self.second(functional.relu(self.first(x))))
            again = functional.relu(self.wide(self.narrow(small.flatten(1)))).view_as(small)
            half = functional.relu(self.third(functional.interpolate(again, size=halves[1])))
            image: Tensor = self.last(functional.interpolate(half, size=halves[0]))
            return image

        def log_error(self, x: Tensor) -> Tensor:
            """Return float[N]: the logarithm of the squared error of the edges over the squared edges."""
            rest = self.reconstructed(x) - x
            error, whole = (edge(one).square().flatten(1).mean(1) for one in (rest, x))
            logarithm: Tensor = (error + _SMALLEST).log() - (whole + _SMALLEST).log()
            return logarithm

        def forward(self, x: Tensor) -> Tensor:
            """Return logits [N, 2]: 0 for normal, and for an anomaly how far the error lies above the threshold."""
            above = self.sharpness * (self.log_error(x) - self.threshold)
            return torch.stack([torch.zeros_like(above), above], dim=1)

        def set_threshold(self, threshold: float, sharpness: float) -> None:
            """Set where an error counts as an anomaly, and how steeply the logits rise there."""
            self.threshold.fill_(threshold)
            self.sharpness.fill_(sharpness)

    def edge(x: Tensor) -> Tensor:
        across = functional.pad(x[..., 1:] - x[..., :-1], (0, 1))
        down = functional.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
        return torch.cat([across, down], dim=1)

    return Autoencoder()
