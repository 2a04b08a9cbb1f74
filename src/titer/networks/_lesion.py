"""Where the lesion is on a dermoscopic image: a soft mask that a gradient goes through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_ROUNDS = 6
_STEEP = 12.0


class Frame(NamedTuple):
    """Coordinates of the pixels, [H, W] each, from -1 to 1, and how far each is from the centre."""

    across: Tensor
    down: Tensor
    radius: Tensor


class Places(NamedTuple):
    """Soft masks [N, 1, H, W], 0 to 1: the lesion, and the skin around it without the dark corners of the lens."""

    lesion: Tensor
    skin: Tensor


def frame(x: Tensor) -> Frame:
    """Return the coordinates for images x [N, C, H, W]."""
    height, width = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:])
    down, across = torch.meshgrid(height, width, indexing="ij")
    return Frame(across, down, (across**2 + down**2).sqrt())


def places(x: Tensor, at: Frame) -> Places:
    """Return lesion and skin of sRGB images x [N, 3, H, W] in 0 to 1.

    Ridler and Calvard's iterated threshold (1978, 10.1109/TSMC.1978.4310039) between dark and bright, of a brightness
    in which blue counts double, with sigmoids in place of its steps so that it has a gradient. The lesion is looked
    for near the centre, where dermoscopy puts it; the skin's first guess is the rim of the image.
    """
    lens = torch.sigmoid((1.05 - at.radius) / 0.04)
    smooth = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    bright = (smooth.mean(1) + smooth[:, 2]) / 2
    central = lens * torch.exp(-(at.radius**2) / 0.8)
    rim = lens * torch.sigmoid((at.radius - 0.8) / 0.05)
    dark, light = _mean(bright, central) - 0.1, _mean(bright, rim)
    mask = bright
    for _ in range(_ROUNDS):
        middle, steep = (dark + light) / 2, _STEEP / ((light - dark).abs() + 0.05)
        mask = torch.sigmoid(steep.view(-1, 1, 1) * (middle.view(-1, 1, 1) - bright))
        dark, light = _mean(bright, mask * central), _mean(bright, (1 - mask) * lens)
    lesion = mask * lens * torch.sigmoid((1.0 - at.radius) / 0.15)
    return Places(lesion.unsqueeze(1), ((1 - lesion) * lens).unsqueeze(1))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over pixels, [N], of values [N, H, W]."""
    return (values * weights).sum((-2, -1)) / (weights.sum((-2, -1)) + 1e-3)
