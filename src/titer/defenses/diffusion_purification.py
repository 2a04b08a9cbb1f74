"""Diffusion purification: noise is put in, and a diffusion model takes it out again with what an attacker added."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Share, defense
from titer.core.protocols import Defense, TrainingData
from titer.engine.in_front import drawn_in_front
from titer.training.diffusion import diffusion_model, time_of


@defense(
    "diffusion-purification",
    paper="Nie, Guo, Huang, Xiao, Vahdat, Anandkumar 2022, arXiv:2205.07460, section 3.1; how to attack it: Lee, Kim "
    "2023, arXiv:2303.09051",
)
def diffusion_purification(
    *,
    noise: Share = 0.1,
    steps: Annotated[int, Field(ge=1, le=20)] = 2,
    gradient: Literal["full", "identity"] = "full",
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 16,
    epochs: Count = 12,
) -> Defense:
    """Diffusion purification (DiffPure).

    The noise is drawn at every look, so that the model declares its draws, and attacks average over them.

    Args:
        noise: how far towards pure noise an image is taken, t* in the paper.
        steps: steps back; the paper takes a hundred, of the same model.
        gradient: what an attacker is given: `full`, through all steps back, or `identity`, the purified image forward
            and the identity backward (BPDA), at a third of the cost.
        width: channels of the diffusion model's first level.
        epochs: passes over the training part, at most, in the diffusion model's training.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        seed = int(torch.randint(2**62, (1,), generator=rng))
        costs = model.provenance.get("costs", "[]")
        made = diffusion_model(train, seed=seed, noise=noise, width=width, epochs=epochs, costs=costs)
        start = time_of(noise)

        def purified(x: Tensor, drawn: Tensor | None) -> Tensor:
            if gradient == "full" or not torch.is_grad_enabled():
                return made.purified(x, drawn, start=start, steps=steps)
            with torch.no_grad():
                clean = made.purified(x, drawn, start=start, steps=steps)
            return x + (clean - x).detach()

        def transform(x: Tensor, rng: Generator) -> Tensor:
            return purified(x, torch.randn(x.shape, generator=rng).to(x))

        known = dict(model.provenance) | {"purifier": made.weights, "costs": made.costs}
        return replace(drawn_in_front(model, transform, lambda x: purified(x, None)), provenance=known)

    return run
