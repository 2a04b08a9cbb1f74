"""Spectral signatures: poisoned rows stand out along the direction in which a class's features vary most."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import cleaner
from titer.core.protocols import Cleaner, TrainingData
from titer.engine.features import in_parts, penultimate

_SMALLEST = 1e-12


@cleaner("spectral-signatures", paper="Tran, Li, Madry 2018, arXiv:1811.00636, algorithm 1")
def spectral_signatures() -> Cleaner:
    """Spectral signatures.

    The score of a row is the square of its centred features' part along the first singular vector of its class, over
    the class's median. The paper removes as many rows of every class; over the median, classes can be compared.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Tensor:  # noqa: ARG001 - nothing is drawn
        part = train.train
        features = in_parts(penultimate(model, part.x), part.x).double()
        scores = torch.zeros(len(part), dtype=torch.float64, device=features.device)
        for label in part.y.unique().tolist():
            own = part.y == label
            scores[own] = signature(features[own])
        return scores.float().cpu()

    return run


def signature(features: Tensor) -> Tensor:
    """Return float[N] for features [N, D] of one class: squares along their first singular vector, over median."""
    centred = features - features.mean(0)
    along = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    squares: Tensor = along.square()
    over: Tensor = squares / squares.median().clamp_min(_SMALLEST)
    return over
