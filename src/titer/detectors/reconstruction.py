"""Reconstruction error: a denoising autoencoder gives clean inputs back, and others less well."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State
from titer.engine.disagreement import jensen_shannon, reluctance
from titer.engine.features import answers
from titer.training.autoencoder import Architecture, denoising_autoencoder, learned, restored

Measure = Literal["error", "divergence"]


@detector(
    "reconstruction",
    paper="Meng, Chen 2017, arXiv:1705.09064, section 4.2 (MagNet); evaded by arXiv:1711.08478",
)
def reconstruction(
    *, measure: Measure = "divergence", epochs: Count = 20, width: Count = 16, noise: Positive = 0.3
) -> Detector:
    """Reconstruction by a denoising autoencoder.

    Args:
        measure: `error`, how far the reconstruction is from the input; `divergence`, how far the model's answers to
            both are apart (Jensen-Shannon).
        epochs: passes of the autoencoder's training over the training part, at most.
        width: of its network; see `titer.training.autoencoder`.
        noise: the largest standard deviation of its training's noise, in standard deviations of the data.
    """
    shape = Architecture(width=width, noise=noise)

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:
        if measure == "divergence":
            _needs_scores(model)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        return learned(denoising_autoencoder(train, seed=seed, architecture=shape, epochs=epochs), train)

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, Logits | None]:
        coder = restored(state, tuple(like.shape[1:]), shape)
        return (_error(coder, state["spread"]), None) if measure == "error" else _divergence(model, coder)

    return Keepable(name="reconstruction", learn=learn, watch=watch)


def _needs_scores(model: Model) -> None:
    if model.access == "decision":
        raise Incompatible('measure = "divergence" compares probabilities, and this model gives decisions alone')


def _error(coder: Model, spread: Tensor) -> Logits:
    """Return the root mean square error of each row, in standard deviations of the training part."""

    def score(rows: Tensor) -> Tensor:
        error = (coder.logits(rows) - rows) / spread.to(rows)
        return error.flatten(1).square().mean(1).clamp_min(1e-24).sqrt()

    return score


def _divergence(model: Model, coder: Model) -> tuple[Logits, Logits]:
    """Return the divergence of the model's answers to input and reconstruction (section 4.2.2), and what evades it."""

    def hard(rows: Tensor) -> Tensor:
        own, other = answers(model, rows), answers(model, coder.logits(rows))
        return jensen_shannon(model.output, torch.stack([own, other]))

    def soft(rows: Tensor) -> Tensor:
        return reluctance(model.output, answers(model, rows), answers(model, coder.logits(rows)))

    return hard, soft
