"""T2: slices whose pixels do not follow from their neighbours: something was put into one slice, or a slice was moved.

Anatomy passes through neighbouring slices: smoothed by a few pixels, a slice lies nearly everywhere between the least
and the greatest of its four neighbours. What lies outside, relative to how much those neighbours differ there, is the
slice's excess. Scores are compared with the median of the series itself, so that noisy and thick series judge
themselves; where slices are so thick that neighbours predict nothing, the rule does not run, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from titer.guard.checks.loaded import load, quiet
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.checks.volume import Series, one_stack
from titer.guard.records import Outcome

SMOOTH = 4.0
"""Standard deviation of the smoothing in pixels: half the radius of what is looked for."""
RATIO, LEAST = 2.8, 1.5
"""An outlier's excess is so many times the series' median, and at least this: tuned on clean series only."""
MOST_MEDIAN = 1.2
"""Above it neighbours predict too little."""
MISFIT = 3.0
_FLOOR, _SPREAD = 0.02, 0.5
_FEWEST = 12
_EDGE = 2


def small(values: np.ndarray) -> np.ndarray:
    """Return a slice smoothed and at a quarter of its resolution, float32[H / 4, W / 4]."""
    from scipy.ndimage import gaussian_filter

    even = values[: values.shape[0] // 2 * 2, : values.shape[1] // 2 * 2].astype(np.float32)
    half = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    out: np.ndarray = gaussian_filter(half, SMOOTH / 2)[::2, ::2]
    return out


def excess(slices: Sequence[np.ndarray], number: int, scale: float) -> tuple[float, tuple[int, int]]:
    """Return how far a slice lies outside its four neighbours, at its worst place, and that place.

    Args:
        slices: as `small` returns them, in the order in which they lie.
        number: of the slice; two or more lie on each side of it.
        scale: the series' range of grey levels.
    """
    from scipy.ndimage import gaussian_filter

    around = np.stack([slices[number + step] for step in (-2, -1, 1, 2)])
    high, low, own = around.max(0), around.min(0), slices[number]
    outside = np.maximum(np.maximum(own - high, low - own), 0)
    score = outside / (_FLOOR * scale + _SPREAD * gaussian_filter(high - low, SMOOTH / 2))
    place = np.unravel_index(int(score.argmax()), score.shape)
    return float(score.max()), (int(place[0]) * 4, int(place[1]) * 4)


def misfit(slices: Sequence[np.ndarray], number: int, scale: float) -> float:
    """Return how much worse a slice fits between its neighbours than these fit each other."""
    before, own, after = (slices[number + step] for step in (-1, 0, 1))
    apart = float(np.abs(own - (before + after) / 2).mean())
    return apart / (float(np.abs(after - before).mean()) / 2 + _FLOOR * scale / 4)


def _outliers(series: Series, _past: Past) -> Iterator[Hit]:
    if len(series.stack) < _FEWEST or not one_stack(series):
        return
    slices = _pixels(series)
    if slices is None:
        return
    scale = _range(slices)
    inner = range(_EDGE, len(slices) - _EDGE)
    found = {number: excess(slices, number, scale) for number in inner}
    scores = np.array([score for score, _ in found.values()])
    usual = float(np.median(scores))
    yield from _moved(slices, inner, scale)
    if usual > MOST_MEDIAN:
        yield Hit(reason="slices are too thick to be judged by their neighbours", outcome=Outcome.PASS,
                  evidence={"median": round(usual, 2), "allowed": MOST_MEDIAN})  # fmt: skip
        return
    least = max(LEAST, RATIO * usual)
    for number, (score, place) in found.items():
        if score > least and score >= max(found[n][0] for n in (number - 1, number + 1) if n in found):
            yield Hit(reason=f"slice {number} holds something that its neighbours do not lead to",
                      evidence={"slice": number, "row": place[0], "column": place[1], "score": round(score, 2),
                                "threshold": round(least, 2)})  # fmt: skip


def _moved(slices: Sequence[np.ndarray], inner: range, scale: float) -> Iterator[Hit]:
    scores = {number: misfit(slices, number, scale) for number in inner}
    usual = float(np.median(list(scores.values())))
    number = max(scores, key=scores.__getitem__)
    if scores[number] > MISFIT * max(usual, 0.5):
        yield Hit(reason=f"slice {number} does not fit between its neighbours: moved, exchanged or mirrored",
                  evidence={"slice": number, "score": round(scores[number], 2), "usual": round(usual, 2)})  # fmt: skip


def _range(slices: Sequence[np.ndarray]) -> float:
    ends = np.array([np.percentile(one, (1, 99)) for one in slices])
    return max(float(np.median(ends[:, 1] - ends[:, 0])), 1e-6)


def _pixels(series: Series) -> list[np.ndarray] | None:
    """Return the slices, made small one by one; None where they are of another kind."""
    out = []
    for one in series.stack:
        with quiet():
            values = load(one.one.path).grey()
        if values is None:
            return None
        out.append(small(values))
    return out


RULES: tuple[Rule[Series], ...] = (
    Rule(name="slice-outlier", catches="a lesion or patch put into one slice, a moved slice (slice-lesion-add)",
         look=_outliers),
)  # fmt: skip
