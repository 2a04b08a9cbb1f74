"""From answers to figures: accuracy, sensitivity, missed tumours, flags, what a reader changes; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from titer.core.randomness import derive
from titer.stats.intervals import clopper_pearson

NO_TUMOUR = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One image: its class, what stands as the answer (None: nothing), and whether a person was asked."""

    truth: int
    said: int | None
    flagged: bool = False
    reviewed: bool = False

    @property
    def right(self) -> bool:
        """The answer is the class."""
        return self.said == self.truth


def figures(readings: Sequence[Reading]) -> dict[str, dict[str, Any]]:
    """Return each figure as a share with its exact 95 % interval (Clopper-Pearson; images are independent).

    `sensitivity` and `fnr` are of tumour against none, over images with a tumour: an answer that is no tumour, or no
    answer, misses it. `flagged` is what was held for a person; `released_wrong` is wrong and was not.
    """
    sick = [one for one in readings if one.truth != NO_TUMOUR]
    found = _count(sick, lambda one: one.said not in (NO_TUMOUR, None))
    counted = {
        "accuracy": (_count(readings, lambda one: one.right), len(readings)),
        "sensitivity": (found, len(sick)),
        "fnr": (len(sick) - found, len(sick)),
        "flagged": (_count(readings, lambda one: one.flagged), len(readings)),
        "released_wrong": (
            _count(readings, lambda one: not one.right and (one.reviewed or not one.flagged)), len(readings),
        ),
    }  # fmt: skip
    return {name: _share(*pair) for name, pair in counted.items()}


def _count(readings: Sequence[Reading], holds: Callable[[Reading], bool]) -> int:
    return sum(map(holds, readings))


def _share(count: int, of: int) -> dict[str, Any]:
    if not of:
        return {"count": 0, "of": 0, "share": None, "low": None, "high": None}
    found = clopper_pearson(count, of)
    return {"count": count, "of": of, "share": found.estimate, "low": found.low, "high": found.high}


def reviewed(readings: Sequence[Reading], classes: int, *, skill: float, seed: int, condition: str) -> list[Reading]:
    """Return what stands once a reader saw everything that was flagged.

    With a chance of `skill` the reader names the class rightly, else one of the others; what was not flagged
    nobody sees. A `skill` of 1 is the upper bound of what review can do. The errors are drawn anew for each
    `condition`: the same draws in all of them would make one lucky draw look like a finding in every column.
    """
    rng = np.random.default_rng(derive(seed, "reader", skill, condition))
    out = []
    for one in readings:
        draw, other = float(rng.random()), int(rng.integers(1, classes))
        said = one.truth if draw < skill else (one.truth + other) % classes
        out.append(replace(one, said=said, reviewed=True) if one.flagged else one)
    return out


def latency(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50 and p99 in milliseconds; None of nothing."""
    if not seconds:
        return None
    values = 1000 * np.asarray(seconds)
    return {"p50": float(np.median(values)), "p99": float(np.percentile(values, 99)), "n": len(seconds)}
