"""The layers that bounds pass through: forwards as intervals, backwards as linear functions.

An affine layer is W x + b. Three things of it are needed: W x, |W| r for radii r, and the slopes W^T a. All are
differentiable in the weights, so that a network can be trained on its bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Pool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGES = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_FORWARD = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_IMAGES = 4


@runtime_checkable
class Affine(Protocol):
    """A layer W x + b; rows are [N, *shape]."""

    def linear(self, x: Tensor) -> Tensor:
        """Return W x."""
        ...

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return |W| r for radii of at least 0."""
        ...

    def back(self, slope: Tensor, shape: Shape) -> Tensor:
        """Return W^T a for slopes [N, *out], shaped as rows of the input's `shape`."""
        ...

    def offset(self, shape: Shape) -> Tensor | None:
        """Return b, broadcastable against one row of the output's `shape`; None where it is 0."""
        ...


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer on the last dimension."""

    part: nn.Linear

    def linear(self, x: Tensor) -> Tensor:
        """Return W x."""
        return functional.linear(x, self.part.weight)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return |W| r."""
        return functional.linear(radius, self.part.weight.abs())

    def back(self, slope: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return W^T a."""
        return slope @ self.part.weight

    def offset(self, shape: Shape) -> Tensor | None:  # noqa: ARG002
        """Return the bias."""
        return cast("Tensor | None", self.part.bias)


@dataclass(frozen=True, slots=True)
class Convolved:
    """A convolution in one, two or three dimensions, zeros around it."""

    part: Convolution

    def linear(self, x: Tensor) -> Tensor:
        """Return W x."""
        return self._forward(x, self.part.weight)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return |W| r."""
        return self._forward(radius, self.part.weight.abs())

    def back(self, slope: Tensor, shape: Shape) -> Tensor:
        """Return W^T a: the transposed convolution."""
        part, sides = self.part, shape[1:]
        if isinstance(part.padding, str):
            return transposed(self.linear, slope, shape)
        grown = [
            (out - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for out, stride, padding, dilation, kernel in zip(
                slope.shape[2:], part.stride, part.padding, part.dilation, part.kernel_size, strict=True
            )
        ]
        rest = tuple(side - size for side, size in zip(sides, grown, strict=True))
        backwards: Callable[..., Tensor] = _TRANSPOSED[len(sides)]
        return backwards(slope, part.weight, None, part.stride, part.padding, rest, part.groups, part.dilation)

    def offset(self, shape: Shape) -> Tensor | None:
        """Return the bias of each channel."""
        return None if self.part.bias is None else self.part.bias.view(-1, *[1] * (len(shape) - 1))

    def _forward(self, x: Tensor, weight: Tensor) -> Tensor:
        part = self.part
        forwards: Callable[..., Tensor] = _FORWARD[weight.dim() - 2]
        return forwards(x, weight, None, part.stride, part.padding, part.dilation, part.groups)


@dataclass(frozen=True, slots=True)
class Normalized:
    """Batch norm with its running statistics, as in evaluation."""

    part: Norm

    def linear(self, x: Tensor) -> Tensor:
        """Return each channel times its factor."""
        return x * self._factor(x.dim() - 1)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return each channel's radius times the size of its factor."""
        return radius * self._factor(radius.dim() - 1).abs()

    def back(self, slope: Tensor, shape: Shape) -> Tensor:
        """Return each channel's slope times its factor."""
        return slope * self._factor(len(shape))

    def offset(self, shape: Shape) -> Tensor | None:
        """Return what each channel is moved by."""
        mean = self.part.running_mean
        assert mean is not None
        moved = -mean.view(-1, *[1] * (len(shape) - 1)) * self._factor(len(shape))
        bias = cast("Tensor | None", self.part.bias)
        return moved if bias is None else moved + bias.view_as(moved)

    def _factor(self, dims: int) -> Tensor:
        variance, weight = self.part.running_var, cast("Tensor | None", self.part.weight)
        assert variance is not None
        factor = (variance + self.part.eps).rsqrt() * (1.0 if weight is None else weight)
        return factor.view(-1, *[1] * (dims - 1))


@dataclass(frozen=True, slots=True)
class Scaled:
    """Every value times a number, plus a number."""

    factor: float
    moved: float = 0.0

    def linear(self, x: Tensor) -> Tensor:
        """Return x times the factor."""
        return x * self.factor

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return the radius times the size of the factor."""
        return radius * abs(self.factor)

    def back(self, slope: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002
        """Return the slope times the factor."""
        return slope * self.factor

    def offset(self, shape: Shape) -> Tensor | None:
        """Return what is added."""
        return torch.full(shape, self.moved) if self.moved else None


@dataclass(frozen=True, slots=True)
class Averaged:
    """Average pooling, plain or adaptive: linear, with no negative weight."""

    part: nn.Module

    def linear(self, x: Tensor) -> Tensor:
        """Return the averages."""
        out: Tensor = self.part(x)
        return out

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return the averages of the radii."""
        return self.linear(radius)

    def back(self, slope: Tensor, shape: Shape) -> Tensor:
        """Return each average's slope shared out among what it is the average of."""
        return transposed(self.linear, slope, shape)

    def offset(self, shape: Shape) -> Tensor | None:  # noqa: ARG002
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class Reshaped:
    """The same values in the same order under another shape: flatten, view, dropout in evaluation."""

    shape: Shape

    def linear(self, x: Tensor) -> Tensor:
        """Return the rows in the new shape."""
        return x.reshape(-1, *self.shape)

    def magnitude(self, radius: Tensor) -> Tensor:
        """Return the radii in the new shape."""
        return self.linear(radius)

    def back(self, slope: Tensor, shape: Shape) -> Tensor:
        """Return the slopes in the old shape."""
        return slope.reshape(-1, *shape)

    def offset(self, shape: Shape) -> Tensor | None:  # noqa: ARG002
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class Rectified:
    """ReLU."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """Max pooling."""

    part: Pool

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        return self._pooled(x)[0]

    def winners(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return int64[N, *out], where in its flattened channel the highest of `low` stands, and bool[N, *out].

        True: no other value of its window can be above it, whatever they are between `low` and `high`.
        """
        best, places = self._pooled(low)
        if low.dim() != _IMAGES or self.part.ceil_mode:
            return places, torch.zeros_like(places, dtype=torch.bool)
        there = torch.arange(low[0, 0].numel(), device=low.device, dtype=low.dtype).view(1, 1, *low.shape[2:])
        others = self._windows(high).masked_fill(self._windows(there) == places.unsqueeze(2), -torch.inf)
        return places, others.amax(2) <= best

    def _windows(self, x: Tensor) -> Tensor:
        """Return [N, C, values of a window, *out], minus infinity around the image."""
        part = self.part
        sides = [part.padding] * 2 if isinstance(part.padding, int) else list(part.padding)
        padded = functional.pad(x, (sides[-1], sides[-1], sides[0], sides[0]), value=-torch.inf)
        windows = functional.unfold(padded, part.kernel_size, part.dilation, 0, part.stride)
        return windows.view(len(x), x.shape[1], -1, *self._pooled(x)[0].shape[2:])

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        part = self.part
        pooled: Callable[..., Any] = _MAXIMA[x.dim() - 2]
        values, places = pooled(
            x, part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode, return_indices=True
        )
        return values, places


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of its inputs: a residual connection."""


@dataclass(frozen=True, slots=True)
class Input:
    """What the network is given."""


Layer = Affine | Rectified | Maximum | Sum | Input


def transposed(linear: Callable[[Tensor], Tensor], slope: Tensor, shape: Shape) -> Tensor:
    """Return W^T a of a linear map by one backward pass, itself differentiable."""
    with torch.enable_grad():
        x = torch.zeros(len(slope), *shape, dtype=slope.dtype, device=slope.device, requires_grad=True)
        (back,) = torch.autograd.grad(linear(x), x, slope, create_graph=slope.requires_grad)
    return back
