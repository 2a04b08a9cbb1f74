"""What dermatologists look at in a pigmented lesion, as differentiable numbers: the ABCD rule and texture.

Asymmetry, Border, Colour and Dermoscopic structure (Nachbar et al. 1994, 10.1016/S0190-9622(94)70061-3) in the form of
region statistics. Every function takes soft masks, so that a gradient with respect to the image exists everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from titer.networks._colour import colours, lab
from titer.networks._lesion import Frame, Places, frame, places

_TINY = 1e-6
_BINS = 8
_HISTOGRAMS = ((-0.7, 0.2), (-0.2, 0.4), (-0.35, 0.25))
"""Ranges of lightness, green-red and blue-yellow of the lesion relative to the skin."""

_SIX = ((1, 1, 1), (0.8, 0.2, 0.2), (0.64, 0.4, 0.16), (0.3, 0.2, 0.1), (0.33, 0.42, 0.5), (0.1, 0.1, 0.1))
"""The six colours of the rule in sRGB: white, red, light brown, dark brown, blue-grey, black."""

_ORIENTATIONS = 4
_SCALES = 3
_REACH = 2


def features(x: Tensor) -> Tensor:
    """Return [N, F] numbers of sRGB images x [N, 3, H, W] in 0 to 1: finite, and differentiable in x."""
    at = frame(x)
    where, channels = places(x, at), colours(x)
    found = (
        *_colour(channels, where),
        *_histograms(channels[:, 3:6], where),
        _six_colours(channels[:, 3:6], where.lesion),
        *_shape(channels[:, 3:6], where.lesion, at),
        *_texture(channels[:, 3:6], where),
    )
    return torch.cat([one.flatten(1) for one in found], 1)


def _over(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over pixels, [N, C], of values [N, C, H, W] under weights [N, 1, H, W]."""
    return (values * weights).sum((2, 3)) / (weights.sum((2, 3)) + 1)


def _root(values: Tensor) -> Tensor:
    root: Tensor = (values.clamp_min(0) + _TINY).sqrt()
    return root


def _colour(channels: Tensor, where: Places) -> tuple[Tensor, ...]:
    """Return mean, spread, skewness and kurtosis of each channel in the lesion, mean and spread in the skin."""
    inside, outside = _over(channels, where.lesion), _over(channels, where.skin)
    away = channels - inside[:, :, None, None]
    spread = _root(_over(away * away, where.lesion)) + 3e-3
    skin_spread = _root(_over((channels - outside[:, :, None, None]) ** 2, where.skin))
    square = away * away
    skewness = (_over(square * away, where.lesion) / spread**3).clamp(-5, 5)
    kurtosis = (_over(square * square, where.lesion) / spread**4).clamp(0, 12)
    return inside, outside, inside - outside, spread, skin_spread, skewness, kurtosis


def _histograms(colour: Tensor, where: Places) -> list[Tensor]:
    """Return soft histograms [N, 8] of L*a*b* in the lesion, relative to the skin."""
    relative = colour - _over(colour, where.skin)[:, :, None, None]
    found = []
    for channel, (low, high) in enumerate(_HISTOGRAMS):
        centres = torch.linspace(low, high, _BINS, device=colour.device).view(1, -1, 1, 1)
        width = (high - low) / _BINS
        found.append(_over(torch.exp(-(((relative[:, channel, None] - centres) / width) ** 2)), where.lesion))
    return found


def _six_colours(colour: Tensor, lesion: Tensor) -> Tensor:
    """Return the log of how much of the lesion is near each of the six colours, [N, 6]."""
    six = lab(colour.new_tensor(_SIX).view(6, 3, 1, 1)).view(1, 6, 3, 1, 1)
    distance = ((colour.unsqueeze(1) - six) ** 2).sum(2)
    return (_over(torch.exp(-distance / 0.03), lesion) + 0.01).log()


def _shape(colour: Tensor, lesion: Tensor, at: Frame) -> tuple[Tensor, ...]:
    """Return size, elongation, raggedness and asymmetry of the outline, asymmetry of colour, and how the border is."""
    centre = [_over(one.expand_as(lesion), lesion).view(-1, 1, 1, 1) for one in (at.across, at.down)]
    dx, dy = at.across - centre[0], at.down - centre[1]
    xx, yy, xy = (_over(one, lesion) for one in (dx * dx, dy * dy, dx * dy))
    size = xx + yy + 0.02
    turned = _root(size**2 / 4 - (xx * yy - xy**2))
    area = lesion.mean((2, 3)) + 1e-3
    third = [_over(one, lesion) for one in (dx**3, dy**3, dx * dx * dy, dx * dy * dy)]
    lopsided = _root(sum((one**2 for one in third), torch.zeros_like(area))) / size**1.5
    edge = _slope(lesion)
    ragged = edge.sum((2, 3)) / (lesion.sum((2, 3)) + 1).sqrt()
    off_centre = _root(centre[0].flatten(1) ** 2 + centre[1].flatten(1) ** 2 + 1e-4)
    outline = (area.log(), size, turned / size, ragged, lopsided, off_centre, _root(xx * yy - xy**2) / (area + 0.05))
    away = colour - _over(colour, lesion)[:, :, None, None]
    shift = _root(_over(away * dx, lesion) ** 2 + _over(away * dy, lesion) ** 2) / size.sqrt()
    inner = lesion * torch.exp(-(dx**2 + dy**2) / (0.5 * size[:, :, None, None]))
    rings = _over(colour, inner) - _over(colour, lesion - inner)
    return (*outline, shift, rings, *_border(colour, edge))


def _border(colour: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log of how steep the colour is along the outline, and of how much that varies, [N, 3] each."""
    steep = _slope(colour)
    mean = _over(steep, edge)
    varies = _root(_over((steep - mean[:, :, None, None]) ** 2, edge))
    return (mean + 1e-3).log(), (varies + 1e-3).log()


def _slope(values: Tensor) -> Tensor:
    """Return the length of the gradient at each pixel, shaped as values [N, C, H, W]."""
    across = functional.pad(values[..., 1:] - values[..., :-1], (0, 1))
    down = functional.pad(values[..., 1:, :] - values[..., :-1, :], (0, 0, 0, 1))
    return _root(across**2 + down**2) - math.sqrt(_TINY)


def _texture(colour: Tensor, where: Places) -> list[Tensor]:
    """Return energies of oriented filters at three scales in L*a*b*: in the lesion, their spread, and in the skin."""
    lesion, skin = where
    found = _energies(colour, lesion, skin)
    for _ in range(_SCALES - 1):
        colour, lesion, skin = (functional.avg_pool2d(one, 2) for one in (colour, lesion, skin))
        found += _energies(colour, lesion, skin)
    return found


def _energies(planes: Tensor, lesion: Tensor, skin: Tensor) -> list[Tensor]:
    """Return the logs [N, C] of the filters' energies, averaged over orientations, and how far they differ in them."""
    count, channels, height, width = planes.shape
    padded = functional.pad(planes.reshape(-1, 1, height, width), (_REACH,) * 4, mode="replicate")
    even, odd = functional.conv2d(padded, _gabors().to(planes)).chunk(2, 1)
    energy = (even * even + odd * odd + _TINY).sqrt().view(count, -1, height, width)
    inside = _over(energy, lesion)
    spread = _root(_over((energy - inside[:, :, None, None]) ** 2, lesion))
    logs = [(one + 1e-3).log().view(count, channels, -1) for one in (inside, spread, _over(energy, skin))]
    return [*(one.mean(2) for one in logs), logs[0].amax(2) - logs[0].amin(2)]


def _gabors() -> Tensor:
    """Return even and odd 5 x 5 filters of four orientations without a mean, [8, 1, 5, 5]."""
    side = torch.arange(-_REACH, _REACH + 1.0)
    down, across = torch.meshgrid(side, side, indexing="ij")
    bell = torch.exp(-(across**2 + down**2) / (2 * 1.2**2))
    even, odd = [], []
    for k in range(_ORIENTATIONS):
        angle = math.pi * k / _ORIENTATIONS
        phase = 2 * math.pi * (across * math.cos(angle) + down * math.sin(angle)) / 4
        even.append(bell * phase.cos())
        odd.append(bell * phase.sin())
    bank = torch.stack([*even, *odd])
    bank = bank - bell * (bank.sum((1, 2)) / bell.sum()).view(-1, 1, 1)
    lengths = (bank * bank).sum((1, 2), keepdim=True).sqrt()
    return (bank / lengths).unsqueeze(1)
