"""SPECTRE: spectral signatures of features that were whitened without the help of the poisoned rows."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Share, cleaner
from titer.core.protocols import Cleaner, TrainingData
from titer.engine.features import in_parts, penultimate

_ENTROPY = 4.0
_ROUNDS = 5
_ROWS_EACH = 4
_SMALLEST = 1e-12


@cleaner(
    "spectre",
    paper="Hayase, Kong, Somani, Oh 2021, arXiv:2104.11315, algorithms 1 and 2; the score: Dong, Hopkins, Li 2019, "
    "arXiv:1906.11366, definition 3.1",
)
def spectre(*, components: Count = 20, trimmed: Share = 0.1) -> Cleaner:
    """Spectral signatures after robust whitening (SPECTRE).

    Plain signatures see poisoned rows only where they are the largest variance of their class. Here the features are
    brought to a few principal components and whitened by a mean and a covariance that the most extreme rows have no
    part in; what sticks out after that is scored over all directions at once, weighed by how much they stick out. The
    paper's covariance is another robust one (Diakonikolas et al. 2017), and it chooses the number of components itself.

    Args:
        components: principal components that are kept.
        trimmed: share of a class's rows that has no part in its mean and covariance.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Tensor:  # noqa: ARG001 - nothing is drawn
        part = train.train
        features = in_parts(penultimate(model, part.x), part.x).double()
        scores = torch.zeros(len(part), dtype=torch.float64, device=features.device)
        for label in part.y.unique().tolist():
            own = part.y == label
            scores[own] = signature(features[own], components, trimmed)
        return scores.float().cpu()

    return run


def signature(features: Tensor, components: int, trimmed: float) -> Tensor:
    """Return float[N] for features [N, D] of one class: the score of quantum entropy, over the class's median."""
    white = _whitened(_reduced(features, components), trimmed)
    if not white.shape[1]:
        return features.new_zeros(len(features))
    excess = white.T @ white / len(white) - torch.eye(white.shape[1]).to(white)
    excess = excess / torch.linalg.matrix_norm(excess, 2).clamp_min(_SMALLEST)
    weights = torch.matrix_exp(_ENTROPY * excess)
    scores = torch.einsum("ni,ij,nj->n", white, weights, white)
    over: Tensor = scores / scores.median().clamp_min(_SMALLEST)
    return over


def _reduced(features: Tensor, components: int) -> Tensor:
    """Return [N, k]: the first principal components, those that do not vary left out."""
    left, sizes, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    few = min(components, len(features) // _ROWS_EACH)  # a covariance of more could not be told from few rows
    kept = sizes[:few] > sizes[:1] * 1e-6
    reduced: Tensor = (left * sizes)[:, : int(kept.sum())]
    return reduced


def _whitened(rows: Tensor, trimmed: float) -> Tensor:
    """Return rows [N, k] so that those that are left without the most extreme ones have mean 0 and covariance 1."""
    inner = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    white = rows
    for _ in range(_ROUNDS if rows.shape[1] else 0):
        spread = torch.cov(rows[inner].T).reshape(rows.shape[1], -1)
        spread = spread + _SMALLEST * spread.trace() * torch.eye(len(spread)).to(spread)
        factor = torch.linalg.cholesky(spread)
        white = torch.linalg.solve_triangular(factor, (rows - rows[inner].mean(0)).T, upper=False).T
        lengths = white.square().sum(1)
        inner = lengths <= lengths.quantile(1 - trimmed)
    return white
