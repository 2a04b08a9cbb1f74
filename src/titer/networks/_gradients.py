"""Histograms of oriented gradients, spread, brightness and asymmetry of a grey image, as differentiable numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_ORIENTATIONS = 8
_TINY = 1e-6
_REACH = 6


def features(x: Tensor) -> Tensor:
    """Return [N, F] numbers of images x [N, 1, H, W] in 0 to 1: finite, and differentiable in x.

    Dalal and Triggs 2005 (10.1109/CVPR.2005.177) at two scales and two sizes of cell. Departures: each orientation
    takes the length of the gradient's projection on it, since their vote for the nearest one has no gradient, and a
    cell is divided by the mean of its neighbours.
    """
    energies = _energies(x)
    spread = _spread(x)
    smooth = functional.avg_pool2d(functional.pad(x, (2,) * 4, mode="replicate"), 5, 1)
    found = (
        _histograms(energies, 8),
        _histograms(_energies(functional.avg_pool2d(x, 2)), 6),
        _histograms(energies, 4),
        functional.adaptive_avg_pool2d(x, 8),
        functional.adaptive_avg_pool2d(x * x, 8),
        functional.adaptive_avg_pool2d(x, 4),
        functional.adaptive_avg_pool2d(x, 12),
        functional.adaptive_avg_pool2d(spread, 8),
        functional.adaptive_max_pool2d(smooth, 8),
        *_asymmetry(x),
    )
    return torch.cat([one.flatten(1) for one in found], 1)


def _energies(x: Tensor) -> Tensor:
    """Return the length of the gradient's projection on each orientation, [N, 8, H, W]."""
    across = functional.pad(x[..., 2:] - x[..., :-2], (1, 1))
    down = functional.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    angles = [math.pi * k / _ORIENTATIONS for k in range(_ORIENTATIONS)]
    along = torch.cat([across * math.cos(angle) + down * math.sin(angle) for angle in angles], 1)
    return (along**2 + _TINY).sqrt() - math.sqrt(_TINY)


def _histograms(energies: Tensor, cells: int) -> Tensor:
    """Return gradient energy by orientation, [N, 8, cells, cells], relative to that of the neighbouring cells."""
    energy = functional.adaptive_avg_pool2d(energies, cells)
    near = functional.pad(energy.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return energy / (functional.avg_pool2d(near, 3, 1) + 0.02)


def _asymmetry(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the two sides differ, mean and largest by place, [N, 1, 6, 6] and [N, 1, 4, 4]: heads are even."""
    # Two products of matrices: as a convolution of one channel this took longer than all other numbers together.
    across = _blur(x.shape[2]).to(x) @ (x - x.flip(3)) @ _blur(x.shape[3]).to(x).T
    size = (across**2 + 1e-4).sqrt()
    return functional.adaptive_avg_pool2d(size, 6), functional.adaptive_max_pool2d(size, 4)


def _blur(side: int) -> Tensor:
    """Return [side, side], the mean of neighbours under a bell of 2 pixels; the edge is repeated beyond it."""
    bell = torch.exp(-(torch.arange(-_REACH, _REACH + 1.0) ** 2) / 8)
    place = torch.arange(side)
    matrix = torch.zeros(side, side)
    for offset, weight in enumerate((bell / bell.sum()).tolist(), start=-_REACH):
        matrix[place, (place + offset).clamp(0, side - 1)] += weight
    return matrix


def _spread(x: Tensor) -> Tensor:
    """Return the standard deviation in 5 x 5 pixels around each, shaped as x."""
    mean = functional.avg_pool2d(functional.pad(x, (2,) * 4, mode="replicate"), 5, 1)
    square = functional.avg_pool2d(functional.pad((x - mean) ** 2, (2,) * 4, mode="replicate"), 5, 1)
    return (square + 1e-4).sqrt()
