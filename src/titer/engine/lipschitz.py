"""How much a network can change for a change of its input: upper bounds of its Lipschitz constant in the l2 norm.

The constant of a chain is at most the product of its layers', and that of a sum the sum of its parts' (Szegedy et al.
2014, arXiv:1312.6199, section 4.3). ReLU and maxima of separate windows have the constant 1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod, sqrt

import torch
from torch import Tensor

from titer.engine.bound_graph import Graph, Step
from titer.engine.bound_layers import Affine, Convolution, Convolved, Dense, Maximum, Normalized, Scaled, Shape, Sum

_FREQUENCIES = 4096
_ROUNDED = 1.0 + 1e-5

Gain = Callable[[Affine, Shape], float]
"""An upper bound of the spectral norm of an affine layer for inputs of a shape."""


def constant(layers: Graph, gain: Gain) -> float:
    """Return an upper bound of ||f(a) - f(b)|| / ||a - b|| for the logits f of the network."""
    found: list[float] = []
    for step in layers.steps:
        given = [found[i] for i in step.inputs]
        found.append(sum(given) if isinstance(step.layer, Sum) else (given or [1.0])[0] * _of(step, layers, gain))
    return found[-1]


def _of(step: Step, layers: Graph, gain: Gain) -> float:
    if isinstance(step.layer, Maximum):
        part, sides = step.layer.part, len(step.shape) - 1
        return sqrt(
            prod(ceil(k / s) for k, s in zip(_each(part.kernel_size, sides), _each(part.stride, sides), strict=True))
        )
    if isinstance(step.layer, Affine):
        return gain(step.layer, layers.steps[step.inputs[0]].shape)
    return 1.0


def measured(layer: Affine, shape: Shape) -> float:
    """Return an upper bound of the layer's spectral norm as its weights are now.

    A dense layer's is its largest singular value. A convolution with zeros around is a part of a circular one on a
    larger grid, whose singular values are those of the kernel's Fourier transform at each frequency (Sedghi, Gupta,
    Long 2019, arXiv:1805.10408, theorem 6). An average's is bounded by its row and column sums (Schur).
    """
    if isinstance(layer, Dense):
        return _ROUNDED * matrix_norm(layer.part.weight)
    if isinstance(layer, Convolved):
        return _ROUNDED * _convolution(layer.part, shape)
    if isinstance(layer, Normalized | Scaled):
        one = torch.ones(1, *shape)
        return float(layer.magnitude(one).max())
    one = torch.ones(1, *shape)
    rows = layer.magnitude(one)
    return sqrt(float(rows.max()) * float(layer.back(torch.ones_like(rows), shape).max()))


def overlap(part: Convolution) -> float:
    """Return an upper bound of the norm of a convolution over that of its kernel as a matrix [out, in x places].

    Each value stands in at most so many patches, and the patches' squares sum to as many times the input's.
    """
    reach = [d * (k - 1) + 1 for d, k in zip(part.dilation, part.kernel_size, strict=True)]
    patches = [min(k, ceil(r / s)) for k, r, s in zip(part.kernel_size, reach, part.stride, strict=True)]
    return sqrt(prod(patches))


def matrix_norm(weight: Tensor) -> float:
    """Return the spectral norm of a weight as a matrix [out, everything else]."""
    return float(torch.linalg.matrix_norm(weight.detach().double().flatten(1), ord=2))


def _convolution(part: Convolution, shape: Shape) -> float:
    weight = part.weight.detach().double()
    simple = overlap(part) * matrix_norm(weight)
    grid = [
        side + max(_padding(part, dim), part.dilation[dim] * (part.kernel_size[dim] - 1))
        for dim, side in enumerate(shape[1:])
    ]
    if prod(grid) > _FREQUENCIES:
        return simple
    return min(simple, max(_circular(_spread(one, part.dilation), grid) for one in weight.chunk(part.groups)))


def _spread(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Return kernels [out, in, ...] with the zeros that a dilation puts between their values."""
    for dim, step in enumerate(dilation, start=2):
        shape = list(weight.shape)
        shape[dim] = step * (shape[dim] - 1) + 1
        places = torch.arange(0, shape[dim], step, device=weight.device)
        weight = weight.new_zeros(shape).index_copy(dim, places, weight)
    return weight


def _circular(weight: Tensor, grid: list[int]) -> float:
    """Return the largest singular value of a circular convolution by kernels [out, in, ...]."""
    sides = list(range(2, weight.dim()))
    waves = torch.fft.fftn(weight, s=grid, dim=sides)
    return float(torch.linalg.matrix_norm(waves.movedim((0, 1), (-2, -1)), ord=2).max())


def _padding(part: Convolution, dim: int) -> int:
    return part.dilation[dim] * (part.kernel_size[dim] - 1) if isinstance(part.padding, str) else part.padding[dim]


def _each(size: int | tuple[int, ...], sides: int) -> tuple[int, ...]:
    return (size,) * sides if isinstance(size, int) else tuple(size)
