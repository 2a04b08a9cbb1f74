"""Feature squeezing: fewer levels of every value, and a median over its neighbours, before the model sees them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import defense
from titer.core.protocols import Defense, TrainingData
from titer.engine.in_front import in_front

_TABLE = 2


@defense(
    "feature-squeezing",
    paper="Xu, Evans, Qi 2018, arXiv:1704.01155, section 3; broken by arXiv:1706.04701, section 4",
)
def feature_squeezing(
    *, bits: Annotated[int, Field(ge=1, le=16)] = 5, window: Annotated[int, Field(ge=1, le=15)] = 3
) -> Defense:
    """Feature squeezing: bit depth, then a median filter.

    Rounding has no useful derivative, and the median has that of the one value it picks. The model declares a
    surrogate: the squeezed input forward, and backward the mean over the window, which led auto-PGD further.

    Args:
        bits: of each value that are kept: 2 ** bits levels of the value range, of a table's features of the range that
            they have in the training part.
        window: side of the median's window, odd; 1 for none. Tables have no neighbours, and get none.
    """
    if window % 2 == 0:
        raise SpecError(f"defenses.feature-squeezing.window = {window} is not allowed: a window is odd, 1 for none")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:  # noqa: ARG001 - the protocol's signature
        x = train.train.x
        if x.dim() != _TABLE and min(x.shape[2:]) < window:
            raise Incompatible(f"feature-squeezing.window = {window} is wider than rows of shape {tuple(x.shape[1:])}")
        low, step = _levels(train, bits)

        def rounded(x: Tensor) -> Tensor:
            return _rounded(x, low.to(x), step.to(x))

        def squeeze(x: Tensor) -> Tensor:
            return median(rounded(x), window)

        def soft(x: Tensor) -> Tensor:
            smooth = mean(x, window)
            return smooth + (squeeze(x) - smooth).detach()

        return in_front(model, squeeze, soft)

    return run


def _levels(train: TrainingData, bits: int) -> tuple[Tensor, Tensor]:
    """Return the lowest level and the distance of levels: numbers, or float[features]; 0 for a constant feature."""
    x = train.train.x
    if train.value_range is not None:
        low, high = (torch.tensor(end) for end in train.value_range)
    elif x.dim() == _TABLE:
        low, high = x.amin(0), x.amax(0)
    else:
        low, high = x.amin(), x.amax()
    return low, (high - low) / (2**bits - 1)


def _rounded(x: Tensor, low: Tensor, step: Tensor) -> Tensor:
    """Return x at its nearest level; beyond the training part's range the levels go on."""
    safe = torch.where(step > 0, step, 1.0)
    return torch.where(step > 0, low + safe * ((x - low) / safe).round(), x)


def median(x: Tensor, window: int) -> Tensor:
    """Return the median over a window of each place, in each channel of [N, C, *places]; mirrored at the edges."""
    return _windows(x, window).median(-1).values


def mean(x: Tensor, window: int) -> Tensor:
    """Return the mean over the same windows as `median`."""
    return _windows(x, window).mean(-1)


def _windows(x: Tensor, window: int) -> Tensor:
    """Return the values in each place's window, [N, C, *places, values]; tables have windows of one value."""
    if window == 1 or x.dim() == _TABLE:
        return x.unsqueeze(-1)
    half, places = window // 2, x.dim() - 2
    wide = functional.pad(x, (half, half) * places, mode="reflect")
    for place in range(2, x.dim()):
        wide = wide.unfold(place, window, 1)
    return wide.flatten(x.dim())
