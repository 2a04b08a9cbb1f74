"""Feature squeezing: does the model say the same of an input with fewer levels, or smoothed?"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Natural, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State
from titer.engine.disagreement import l1_distance, reluctance
from titer.engine.features import answers
from titer.engine.squeezing import ends, fewer_levels, median


@detector(
    "feature-squeezing",
    paper="Xu, Evans, Qi 2018, arXiv:1704.01155, section V; evaded by He et al. 2017, arXiv:1706.04701",
)
def feature_squeezing(*, bits: Annotated[int, Field(ge=0, le=16)] = 4, window: Natural = 3) -> Detector:
    """Feature squeezing.

    The score is the largest L1 distance between the model's probabilities for an input and for each squeezed copy.
    Tables have no neighbours: they are squeezed by levels alone, between the ends of each feature.

    Args:
        bits: levels are 2 to this power, over the range of the data; 0 leaves this squeezer out.
        window: places along each side that a median is taken of; 0 leaves this squeezer out.
    """

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:  # noqa: ARG001 - nothing is drawn
        if model.access == "decision":
            raise Incompatible("feature-squeezing compares probabilities, and this model gives decisions alone")
        low, high = ends(train.train.x, train.value_range)
        _squeezers({"low": low, "high": high}, train.train.x, bits, window)
        return {"low": low, "high": high}

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, Logits]:
        squeezers = _squeezers(state, like, bits, window)

        def hard(x: Tensor) -> Tensor:
            own = answers(model, x)
            return torch.stack([l1_distance(model.output, own, answers(model, one(x))) for one in squeezers]).amax(0)

        def soft(x: Tensor) -> Tensor:
            own = answers(model, x)
            return torch.stack([reluctance(model.output, own, answers(model, one(x))) for one in squeezers]).amax(0)

        return hard, soft

    return Keepable(name="feature-squeezing", learn=learn, watch=watch)


def _squeezers(state: State, x: Tensor, bits: int, window: int) -> list[Logits]:
    found: list[Logits] = []
    if bits:
        low, high = state["low"], state["high"]
        found.append(lambda rows: fewer_levels(rows, bits, low.to(rows), high.to(rows)))
    if window > 1 and x.dim() > 2:
        found.append(lambda rows: median(rows, window))
    if not found:
        raise Incompatible("feature-squeezing has no squeezer left: set bits, or for images window, above 0")
    return found
