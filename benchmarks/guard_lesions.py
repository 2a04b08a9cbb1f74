"""How far lesions that part 4's tampers add or remove stand out from clean slices, by the scores of the T2 rules.

    python benchmarks/guard_lesions.py

Data: `TITER_DATA` (../shared/data). Prints, for stretches of 20 thin slices and for two series of thick ones, what
clean slices reach and what changed ones reach: as multiples of the median of the stretch, and in spreads (median
absolute deviation) above it. Lesions have radius 8 and contrast 0.5. Seeds are 1000 and more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from guard_checks import brain_series, mr_volume
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from scipy.ndimage import maximum_filter

from titer.guard.checks.outliers import LEAST, MOST_MEDIAN, RATIO, excess, small
from titer.guard.checks.texture import LEAST as LEAST_GRAIN
from titer.guard.checks.texture import MARGIN, whiteness
from titer.tampers.slice_lesion_add import _added
from titer.tampers.slice_lesion_remove import _brightest, _removed

STRETCH, RADIUS, CONTRAST = 20, 8, 0.5
_LITTLE = 0.02
Slices = Sequence[np.ndarray]


def main() -> None:
    """Print both tables."""
    data = Path(os.environ.get("TITER_DATA", "../shared/data"))
    volume = np.stack([dcmread(DicomBytesIO(one)).pixel_array for one in mr_volume(data)]).astype(np.float32)
    thin = {
        "axial": list(volume),
        "coronal": list(volume.transpose(1, 0, 2)[60:330]),
        "sagittal": list(volume.transpose(2, 0, 1)[40:240]),
    }
    for name, slices in thin.items():
        added(name, [slices[at : at + STRETCH] for at in range(0, len(slices) - STRETCH + 1, 10)], (10,), 1)
    thick = {f"brain {number}": [one.astype(np.float32) for one in brain_series(data, number)] for number in (1, 2)}
    for name, slices in thick.items():
        added(name, [slices], (8, len(slices) // 2, 16), 3)
        filled(name, [slices])
    filled("axial", [thin["axial"][at : at + STRETCH] for at in range(0, 111, 20)])
    filled("sagittal", [thin["sagittal"][at : at + STRETCH] for at in range(20, 161, 40)])


def added(name: str, stretches: Sequence[Slices], places: Sequence[int], draws: int) -> None:
    """Print how far added lesions lie outside their neighbours, beside the worst clean slice of each stretch."""
    clean, changed, alarms, caught, thick = [], [], 0, 0, 0
    for number, slices in enumerate(stretches):
        reduced = [small(one) for one in slices]
        scores = outside(reduced)
        clean.append((scores.max(), *above(scores, scores.max())))
        thick += np.median(scores) > MOST_MEDIAN
        alarms += scores.max() > limit(scores)
        for place in places:
            for draw in range(draws):
                rng = torch.Generator().manual_seed(1000 + 100 * number + draw)
                own = list(reduced)
                own[place] = small(np.rint(_added(slices[place], RADIUS, CONTRAST, rng)[0]))
                found = outside(own)
                score = found[place - 2]
                changed.append((score, *above(found, score)))
                caught += score > limit(found)
    print(f"lesion added, {name}: {len(stretches)} stretches, {thick} of slices that the rule finds too thick to judge")
    print(f"  clean slices above the threshold: {alarms} stretches; lesions above it: {caught} of {len(changed)}")
    told("excess, multiple of the median, spreads", clean, changed)


def filled(name: str, stretches: Sequence[Slices]) -> None:
    """Print how white the grain of filled discs is, beside the worst clean slice of each stretch."""
    clean, changed, alarms, caught = [], [], 0, 0
    for number, slices in enumerate(stretches):
        grains = [whiteness(one) for one in slices]
        scores = np.array([grain(grains, place) for place in range(1, len(slices) - 1)])
        least = max(LEAST_GRAIN, float(np.median(scores)) + MARGIN)
        clean.append((scores.max(), *above(scores, scores.max())))
        alarms += scores.max() > least
        for place in (len(slices) // 2 - 3, len(slices) // 2, len(slices) // 2 + 3):
            rng = torch.Generator().manual_seed(1000 + 100 * number + place)
            made, _ = _removed(slices[place], *_brightest(slices[place], RADIUS), RADIUS, rng)
            score = grain([*grains[:place], whiteness(np.rint(made)), *grains[place + 1 :]], place)
            changed.append((score, *above(scores, score)))
            caught += score > least
    print(f"disc filled, {name}: {len(stretches)} stretches")
    print(f"  clean slices above the threshold: {alarms} stretches; discs above it: {caught} of {len(changed)}")
    told("whiteness, multiple of the median, spreads", clean, changed)


def outside(reduced: Slices) -> np.ndarray:
    """Return the excess of each slice that has two neighbours on both sides."""
    ends = [np.percentile(one, (1, 99)) for one in reduced]
    scale = max(float(np.median([high - low for low, high in ends])), 1e-6)
    return np.array([excess(reduced, number, scale)[0] for number in range(2, len(reduced) - 2)])


def limit(scores: np.ndarray) -> float:
    """Return the threshold of the rule for a series of these scores."""
    return max(LEAST, RATIO * float(np.median(scores)))


def grain(grains: Slices, place: int) -> float:
    """Return how much whiter a slice's grain is than that of both neighbours, at its worst place."""
    others = np.maximum(maximum_filter(grains[place - 1], 5), maximum_filter(grains[place + 1], 5))
    return float(np.minimum(grains[place], 0.5 + grains[place] - others).max())


def above(scores: np.ndarray, score: float) -> tuple[float, float]:
    """Return a score as a multiple of the median, and in spreads above it."""
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle))) + _LITTLE
    return score / middle, (score - middle) / spread


def told(what: str, clean: Sequence[tuple[float, ...]], changed: Sequence[tuple[float, ...]]) -> None:
    """Print the worst clean values, and least, median and greatest of the changed ones."""
    print(f"  {what}: clean up to {np.round(np.max(clean, axis=0), 2)}")
    for word, value in (("least", np.min), ("median", np.median), ("greatest", np.max)):
        print(f"    changed, {word}: {np.round(value(changed, axis=0), 2)}", flush=True)


if __name__ == "__main__":
    main()
