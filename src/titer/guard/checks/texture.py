"""T2: places in a slice whose grain is that of drawn noise: something was taken out and painted over.

A filled place has smooth grey levels with noise on top that is new from pixel to pixel. In a reconstructed image noise
is smeared over neighbours, and tissue has structure at every scale. Second differences tell them apart: of white noise
they have the same variance (6 sigma^2) at one, two and three pixels' distance and in both directions, and linear
gradients vanish from them; of tissue they grow with the distance. A place is judged against the same place in the
neighbouring slices, and a slice against the median of its series.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from titer.guard.checks.loaded import load, quiet
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.checks.volume import Series, one_stack
from titer.guard.records import Outcome

MARGIN, LEAST = 0.26, 0.66
"""A painted place lies so far above the series' median, and at least there: tuned on clean series only."""
MOST_MEDIAN = 0.70
"""Above it noise is new from pixel to pixel everywhere, and painted places do not stand out."""
_WINDOW = 11
_BODY = 0.3
_FLOOR = 0.004
_COMMON = 0.5
_FEWEST = 12
_EDGE = 2


def whiteness(values: np.ndarray) -> np.ndarray:
    """Return how much the grain around each pixel is like white noise, float32[H, W]: about 1 where it is.

    Windows are 11 pixels wide. Places that are darker than three tenths of the range, and the edge, have 0.
    """
    from scipy.ndimage import uniform_filter

    grey = values.astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    floor = (_FLOOR * (high - low)) ** 2 + 1e-12
    rows, columns = zip(*(_differences(grey, lag) for lag in (1, 2, 3)), strict=True)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = np.zeros_like(grey)
    laplacian[1:-1, 1:-1] = (grey[1:-1, 1:-1] - around / 4) ** 2
    isotropic = (6 / 1.25) * uniform_filter(laplacian, _WINDOW) / ((rows[0] + columns[0]) / 2 + floor)
    ratios = [isotropic, rows[0] / (columns[0] + floor), columns[0] / (rows[0] + floor)]
    ratios += [same[0] / (far + floor) for same in (rows, columns) for far in same[1:]]
    score = np.minimum.reduce(ratios)
    score[uniform_filter(grey, _WINDOW) <= low + _BODY * (high - low)] = 0
    edge = _WINDOW // 2 + 3
    inner: np.ndarray = np.zeros_like(score)
    inner[edge:-edge, edge:-edge] = score[edge:-edge, edge:-edge]
    return inner


def _differences(grey: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the local mean square of second differences across columns and across rows."""
    from scipy.ndimage import uniform_filter

    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, lag:-lag] = (2 * grey[:, lag:-lag] - grey[:, : -2 * lag] - grey[:, 2 * lag :]) ** 2
    down[lag:-lag] = (2 * grey[lag:-lag] - grey[: -2 * lag] - grey[2 * lag :]) ** 2
    return uniform_filter(across, _WINDOW), uniform_filter(down, _WINDOW)


def _painted(series: Series, _past: Past) -> Iterator[Hit]:
    if len(series.stack) < _FEWEST or not one_stack(series):
        return
    scores = list(_scores(series))
    if len(scores) < len(series.stack) - 2:
        return
    usual = float(np.median([score for score, _ in scores]))
    if usual > MOST_MEDIAN:
        yield Hit(
            reason="noise is new from pixel to pixel: painted places would not stand out",
            outcome=Outcome.PASS,
            evidence={"median": round(usual, 2), "allowed": MOST_MEDIAN},
        )
        return
    least = max(LEAST, usual + MARGIN)
    for number, (score, place) in enumerate(scores, start=1):
        if score > least and _EDGE <= number < len(series.stack) - _EDGE:
            yield Hit(
                reason=f"a place in slice {number} has the grain of drawn noise",
                evidence={
                    "slice": number,
                    "row": place[0],
                    "column": place[1],
                    "score": round(score, 2),
                    "threshold": round(least, 2),
                },
            )


def _scores(series: Series) -> Iterator[tuple[float, tuple[int, int]]]:
    """Yield score and place of each slice but the first and the last; three slices are held at a time."""
    from scipy.ndimage import maximum_filter

    held: deque[np.ndarray] = deque(maxlen=3)
    for one in series.stack:
        with quiet():
            values = load(one.one.path).grey()
        if values is None:
            return
        held.append(whiteness(values))
        if len(held) == held.maxlen:
            others = np.maximum(maximum_filter(held[0], 5), maximum_filter(held[2], 5))
            own = np.minimum(held[1], _COMMON + held[1] - others)
            row, column = np.unravel_index(int(own.argmax()), own.shape)
            yield float(own.max()), (int(row), int(column))


RULES: tuple[Rule[Series], ...] = (
    Rule(name="slice-texture", catches="a place that was painted over (slice-lesion-remove)", look=_painted),
)
