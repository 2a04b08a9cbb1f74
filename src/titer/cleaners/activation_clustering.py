"""Activation clustering: poisoned rows of a class make a small cluster of their own."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, cleaner
from titer.core.protocols import Cleaner, TrainingData
from titer.engine.features import in_parts, penultimate

_EVEN = 0.5
_STARTS = 10


@cleaner("activation-clustering", paper="Chen et al. 2018, arXiv:1811.03728, algorithm 1 and section 4.2")
def activation_clustering(*, components: Count = 10) -> Cleaner:
    """Activation clustering.

    The features of each class are brought to a few independent components and split into two clusters. A row's score is
    how much nearer it is to the smaller cluster, weighed by how well the clusters part (silhouette) and by how much
    smaller that cluster is: the paper's two criteria, as one number.

    Args:
        components: independent components that are kept; the paper's 10.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Tensor:
        part = train.train
        features = in_parts(penultimate(model, part.x), part.x).cpu().numpy()
        seed = int(torch.randint(2**31, (1,), generator=rng))
        scores, y = np.zeros(len(part)), part.y.cpu().numpy()
        for label in np.unique(y):
            scores[y == label] = _nearness(features[y == label], components, seed)
        return torch.from_numpy(scores).float()

    return run


def _nearness(features: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Return float64[n] for features [n, D] of one class, -1 to 1: above 0 in the smaller cluster."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    reduced = _independent(features, components, seed)
    if len(np.unique(reduced, axis=0)) <= 2:
        return np.zeros(len(features))
    found = KMeans(n_clusters=2, n_init=_STARTS, random_state=seed).fit(reduced)
    small = int(np.bincount(found.labels_, minlength=2).argmin())
    share = float((found.labels_ == small).mean())
    away = found.transform(reduced)
    nearer = (away[:, 1 - small] - away[:, small]) / away.sum(1)
    apart = max(
        0.0, float(silhouette_score(reduced, found.labels_, sample_size=min(len(reduced), 2000), random_state=seed))
    )
    weighed: np.ndarray = nearer * apart * (_EVEN - share) / _EVEN
    return weighed


def _independent(features: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Return float64[n, components] by independent component analysis; features that never vary are left out."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    varied = features[:, features.std(0) > 0].astype(np.float64)
    count = min(components, varied.shape[1], len(varied) - 1)
    if count < 1:
        return np.zeros((len(features), 1))
    with warnings.catch_warnings():
        # Components that still move a little part the clusters as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: np.ndarray = FastICA(n_components=count, whiten="unit-variance", random_state=seed).fit_transform(varied)
    return found
