"""Splits of few patients with many rows each: drawn, as balanced folds would be the same in every trial."""

from __future__ import annotations

import numpy as np

from titer.core.errors import SpecError

_FEW = 40
_ROWS_EACH = 10
_DRAWS = 20


def few(patients: np.ndarray) -> bool:
    """Return whether there are so few patients, with so many rows each, that folds would not differ between trials.

    Stratified folds take patients by how uneven their classes are, the most uneven first, and a seed decides only
    between equals: among a dozen records with a thousand beats each no two are equal.
    """
    count = len(set(patients.tolist()))
    return count <= _FEW and len(patients) >= _ROWS_EACH * count


def drawn_patients(
    kinds: np.ndarray, patients: np.ndarray, rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rest, part): whole patients, `part` about `share` of the rows, every kind on both sides.

    Of some random draws of patients it is the one whose shares of the kinds are nearest to `share`.

    Raises:
        SpecError: no draw leaves every kind on both sides.
    """
    rng, here = np.random.default_rng(seed % 2**32), kinds[rows]
    names, total = np.unique(patients), np.bincount(here)
    best, nearest = None, np.inf
    for _ in range(_DRAWS):
        chosen = np.isin(patients, _some(rng.permutation(names), patients, share * len(rows)))
        counts = np.bincount(here[chosen], minlength=len(total))
        lost = ((counts == 0) | (counts == total)) & (total > 0)
        distance = np.abs(counts[total > 0] / total[total > 0] - share).max()
        if not lost.any() and distance < nearest:
            best, nearest = chosen, distance
    if best is None:
        raise SpecError(f"data has {len(names)} patients: no split of them leaves rows of every class in every part")
    return rows[~best], rows[best]


def _some(order: np.ndarray, patients: np.ndarray, wanted: float) -> np.ndarray:
    """Return the first patients of `order` that together come nearest to `wanted` rows, but never all of them."""
    sizes = np.cumsum([np.count_nonzero(patients == name) for name in order])
    count = int(np.abs(sizes[:-1] - wanted).argmin()) + 1 if len(order) > 1 else 1
    return order[:count]
