"""Gradient masking, on purpose: it removes no error, so that a report shows what hiding gradients is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.threat import Logits
from titer.engine.in_front import in_front, straight_through


@defense(
    "gradient-masking",
    paper="Papernot, McDaniel, Goodfellow, Jha, Celik, Swami 2017, arXiv:1602.02697, section 6; "
    "broken by Athalye, Carlini, Wagner 2018, arXiv:1802.00420, section 4",
)
def gradient_masking(
    *,
    form: Literal["logits", "input"] = "logits",
    steepness: Positive = 1000.0,
    levels: Annotated[int, Field(ge=2, le=256)] = 16,
) -> Defense:
    """Gradient masking, to be broken.

    Args:
        form: `logits` multiplies them, so that the cross-entropy's gradient is rounded to zero; `input` sends each
            value up a staircase of steep sigmoids, which is flat nearly everywhere.
        steepness: the factor of the logits; for `input`, how many times steeper a stair is than the straight way up.
        levels: stairs between the lowest and the highest value, for `input`.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:  # noqa: ARG001 - the protocol's signature
        if form == "logits":
            return _steep(model, steepness)
        low, high = _ends(train)

        def climb(x: Tensor) -> Tensor:
            return staircase(x, low.to(x), high.to(x), levels, steepness)

        return in_front(model, climb, straight_through(climb))

    return run


def _steep(model: Model, steepness: float) -> Model:
    """Return the model with larger logits; they still have a gradient, so that no surrogate is needed."""
    if model.output == "value":
        raise Incompatible("gradient-masking multiplies logits, and those of a model that measures a value are values")
    draw, surrogate, exact = model.draw, model.surrogate, model.exact
    return replace(
        model,
        logits=_times(model.logits, steepness),
        surrogate=None if surrogate is None else _times(surrogate, steepness),
        exact=None if exact is None else _times(exact, steepness),
        draw=None if draw is None else lambda rng: _times(draw(rng), steepness),
        rebuild=None,
    )


def _times(logits: Logits, factor: float) -> Logits:
    return lambda x: factor * logits(x)


def _ends(train: TrainingData) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value: numbers, or those of each feature of a table's training part."""
    if train.value_range is not None:
        low, high = train.value_range
        return torch.tensor(low), torch.tensor(high)
    x = train.train.x
    dims = 0 if x.dim() == 2 else tuple(range(x.dim()))
    return x.amin(dims), x.amax(dims)


def staircase(x: Tensor, low: Tensor, high: Tensor, levels: int, steepness: float) -> Tensor:
    """Return x on a smooth staircase of `levels` stairs from low to high; straight on beyond them and where they meet.

    A value is its stair's middle plus half a stair times tanh(steepness * way) / tanh(steepness), where `way` (-1 to 1)
    is where on the stair it is: one formula for the sum of sigmoids that is exact at the ends of each stair.
    """
    width = (high - low) / (levels - 1)
    safe = torch.where(width > 0, width, 1.0)
    place = (x - low) / safe
    stair = place.detach().floor()
    way = 2.0 * (place - stair) - 1.0
    limit = torch.tanh(torch.tensor(steepness, dtype=x.dtype, device=x.device))
    up = low + safe * (stair + 0.5 + 0.5 * torch.tanh(steepness * way) / limit)
    return torch.where((width > 0) & (x >= low) & (x <= high), up, x)
