"""A denoising autoencoder in front of the model: what it cannot give back does not reach the model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.engine.in_front import in_front
from titer.training.autoencoder import Architecture, denoised
from titer.training.autoencoder import denoising_autoencoder as trained


@defense(
    "denoising-autoencoder",
    paper="Meng, Chen 2017, arXiv:1705.09064, section 4.3 (the reformer); broken by arXiv:1711.08478",
)
def denoising_autoencoder(
    *, noise: Positive = 0.3, width: Annotated[int, Field(ge=2, le=256)] = 16, epochs: Count = 30
) -> Defense:
    """Sanitization by a denoising autoencoder.

    It has a gradient, and attacks follow it through autoencoder and model as through one network.

    Args:
        noise: strongest noise of its training, in standard deviations of the data.
        width: half the channels of an image's stages, a quarter of a table's hidden values.
        epochs: passes over the training part, at most.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        seed = int(torch.randint(2**62, (1,), generator=rng))
        cleaner = trained(train, seed=seed, architecture=Architecture(width=width, noise=noise), epochs=epochs)

        def clean(x: Tensor) -> Tensor:
            return denoised(cleaner, x)

        spent = [*json.loads(model.provenance.get("costs", "[]")), *json.loads(cleaner.provenance["costs"])]
        known = dict(model.provenance) | {"cleaner": cleaner.provenance["weights"], "costs": json.dumps(spent)}
        return replace(in_front(model, clean), provenance=known)

    return run
