"""Colour spaces of an image as differentiable functions of its red, green and blue in 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

# sRGB to XYZ under D65 (IEC 61966-2-1), each row divided by the white point: white is (1, 1, 1).
_XYZ = ((0.4339, 0.3762, 0.1899), (0.2127, 0.7152, 0.0721), (0.0178, 0.1095, 0.8728))
_KNEE = 6 / 29
_LINEAR_BELOW = 0.04045
_DARK = 0.05


def lab(x: Tensor) -> Tensor:
    """Return CIE L*a*b* over 100, [N, 3, H, W], of sRGB x [N, 3, H, W]: lightness 0 to 1, green-red, blue-yellow."""
    above = ((x.clamp_min(_LINEAR_BELOW) + 0.055) / 1.055) ** 2.4
    linear = torch.where(x > _LINEAR_BELOW, above, x / 12.92)
    xyz = torch.einsum("ij,njhw->nihw", x.new_tensor(_XYZ), linear)
    root = xyz.clamp_min(_KNEE**3) ** (1 / 3)
    f = torch.where(xyz > _KNEE**3, root, xyz / (3 * _KNEE**2) + 4 / 29)
    return torch.stack((1.16 * f[:, 1] - 0.16, 5 * (f[:, 0] - f[:, 1]), 2 * (f[:, 1] - f[:, 2])), 1)


def colours(x: Tensor) -> Tensor:
    """Return nine channels [N, 9, H, W] of sRGB x [N, 3, H, W]: x, L*a*b*, the shares of red and green, saturation.

    A little grey is added where a share of darkness would be noise.
    """
    shares = x[:, :2] / (x.sum(1, keepdim=True) + _DARK)
    high = x.amax(1, keepdim=True)
    saturation = (high - x.amin(1, keepdim=True)) / (high + _DARK)
    return torch.cat((x, lab(x), shares, saturation), 1)
