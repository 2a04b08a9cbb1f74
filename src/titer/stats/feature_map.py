"""A map of features: where clean and attacked rows lie in a network's feature space, in two dimensions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from titer.core.errors import Incompatible

_FEWEST = 5
_PERPLEXITY = 30.0
_COMPONENTS = 50


class FeatureMap(NamedTuple):
    """Coordinates float64[n, 2] of clean and float64[m, 2] of attacked rows; only neighbourhoods mean anything."""

    clean: NDArray[np.float64]
    attacked: NDArray[np.float64]


def feature_map(clean: ArrayLike, attacked: ArrayLike, *, seed: int = 0, perplexity: float = _PERPLEXITY) -> FeatureMap:
    """Return t-SNE coordinates of features [n, D] and [m, D], laid out together (van der Maaten, Hinton 2008).

    Features are brought to 50 principal components first, and the layout begins at the first two, so that the same
    seed gives the same map. `perplexity`, about how many neighbours a row has, is kept below a third of the rows.

    Raises:
        Incompatible: fewer than five rows together, features of two widths, or values that are no numbers.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    honest, fooled = (np.asarray(one, dtype=np.float64) for one in (clean, attacked))
    if honest.ndim != 2 or fooled.ndim != 2 or honest.shape[1] != fooled.shape[1]:
        raise Incompatible(f"a feature map takes features [n, D] and [m, D], not {honest.shape} and {fooled.shape}")
    both = np.concatenate([honest, fooled])
    if len(both) < _FEWEST or not np.isfinite(both).all():
        raise Incompatible(f"a feature map takes {_FEWEST} rows or more of finite numbers, and there are {len(both)}")
    if both.shape[1] > _COMPONENTS:
        both = PCA(n_components=min(_COMPONENTS, len(both)), random_state=seed).fit_transform(both)
    layout = TSNE(perplexity=min(perplexity, (len(both) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    placed = np.asarray(layout.fit_transform(both), dtype=np.float64)
    return FeatureMap(placed[: len(honest)], placed[len(honest) :])


def neighbours_alike(
    features: ArrayLike, clean: ArrayLike, labels: ArrayLike, own: ArrayLike, *, count: int = 10
) -> NDArray[np.float64]:
    """Return float64[m]: of the `count` clean rows nearest to each row, the share that has the row's own label.

    Nearest by Euclidean distance in the feature space itself, not on the map.

    Args:
        features: [m, D], the rows asked about.
        clean: [n, D], with their `labels` [n].
        own: int[m], each row's own place among the clean rows: its label counts, and it is no neighbour of itself.
        count: neighbours; all others where there are fewer.

    NaN where there is no other clean row.
    """
    from scipy.spatial.distance import cdist

    rows, others = (np.asarray(one, dtype=np.float64) for one in (features, clean))
    names, place = np.asarray(labels), np.asarray(own)
    count = min(count, len(others) - 1)
    if count < 1:
        return np.full(len(rows), np.nan)
    distance = cdist(rows, others)
    distance[np.arange(len(rows)), place] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :count]
    return np.asarray((names[nearest] == names[place][:, None]).mean(axis=1), dtype=np.float64)
