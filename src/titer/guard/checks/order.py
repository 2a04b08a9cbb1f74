"""T2: how the slices of a series lie and are numbered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.checks.volume import Series, main_direction
from titer.guard.records import Outcome

DIRECTION = "InstanceNumberDirection"
_FEW = 3
_SAME_MM = 0.01
_GAP = 1.5
_AGAINST = -0.9
_FEWEST_SERIES = 5


def direction(series: Series) -> str | None:
    """Return along which axis of the body the instance numbers of a stack grow, None where they do not order it."""
    numbers = [one.number for one in series.stack]
    if series.normal is None or len(numbers) < _FEW or None in numbers:
        return None
    steps = np.diff(np.array(numbers, dtype=float))
    if not ((steps > 0).all() or (steps < 0).all()):
        return None
    sign = 1 if steps[0] > 0 else -1
    return main_direction([sign * value for value in series.normal])


def _uids(series: Series, _past: Past) -> Iterator[Hit]:
    twice = Counter(one.text("SOPInstanceUID") for one in series.objects)
    if doubled := [uid for uid, n in twice.items() if n > 1]:
        yield Hit(
            reason="two objects of the series have one SOPInstanceUID",
            evidence={"uids": doubled[:5]},
            outcome=Outcome.BLOCK,
        )


def _spacing(series: Series, _past: Past) -> Iterator[Hit]:
    """Even distances; each place taken as often as every other one (phases and echoes lie on each other)."""
    if len(series.stack) < _FEW:
        return
    along = np.array([one.along for one in series.stack])
    starts = np.concatenate([[True], np.diff(along) > _SAME_MM])
    places, counts = along[starts], np.diff(np.append(np.flatnonzero(starts), len(along)))
    if len(set(counts.tolist())) > 1:
        yield Hit(
            reason="some slices lie where another one lies, or one is missing among several at each place",
            evidence={"places": len(places), "slices_at_a_place": sorted(set(counts.tolist()))},
        )
    if len(places) < _FEW:
        return
    steps = np.diff(places)
    usual = float(np.median(steps))
    odd = np.flatnonzero((steps > _GAP * usual) | (steps < usual / _GAP))
    if odd.size:
        yield Hit(
            reason="slices do not lie at even distances: one is missing, was moved, or was put in",
            evidence={
                "usual_mm": round(usual, 3),
                "odd_mm": [round(float(steps[i]), 3) for i in odd[:5]],
                "at": [int(i) for i in odd[:5]],
            },
        )


def _line(series: Series, _past: Past) -> Iterator[Hit]:
    """All slices lie on one line through the body, oblique where the gantry was tilted; none is shifted aside."""
    if len(series.stack) < _FEW + 1:
        return
    along = np.array([one.along for one in series.stack])
    worst = 0.0
    for axis in (0, 1):
        across = np.array([one.across[axis] for one in series.stack])
        i, j = (
            np.triu_indices(len(along), k=1)
            if len(along) <= 64
            else (np.arange(len(along) - 1), np.arange(1, len(along)))
        )
        apart = along[j] - along[i]
        slope = (
            float(np.median((across[j] - across[i])[apart > _SAME_MM] / apart[apart > _SAME_MM]))
            if (apart > _SAME_MM).any()
            else 0.0
        )
        rest = across - slope * along
        worst = max(worst, float(np.abs(rest - np.median(rest)).max()))
    if worst > 1.0:
        yield Hit(
            reason="a slice lies aside of the line of the others", evidence={"aside_mm": round(worst, 2)}, habit="aside"
        )


def _numbers(series: Series, _past: Past) -> Iterator[Hit]:
    """InstanceNumber follows the place of slices, upwards or downwards, where each place has one slice."""
    if len(series.stack) < _FEW or not _single(series):
        return
    numbers = [one.number for one in series.stack]
    known = [n for n in numbers if n is not None]
    if len(known) < len(numbers):
        yield Hit(
            reason="slices have no InstanceNumber", evidence={"without": len(numbers) - len(known)}, habit="absent"
        )
    elif len(set(known)) < len(known):
        yield Hit(
            reason="slices share an InstanceNumber",
            evidence={"different": len(set(known)), "slices": len(known)},
            habit="shared",
        )
    elif direction(series) is None:
        out = int((np.sign(np.diff(known)) != np.sign(np.median(np.sign(np.diff(known))))).sum())
        yield Hit(
            reason="InstanceNumber does not follow the place of the slices",
            evidence={"out_of_order": out},
            habit="disordered",
        )


def _usual_direction(series: Series, past: Past) -> Iterator[Hit]:
    """Numbers grow the way in which they always grow on this device."""
    own = direction(series) if _single(series) else None
    known = past.baseline(series.device(past), DIRECTION)
    axis = {way: n for way, n in known.items() if own and way[:2] == own[:2]}
    if own is not None and sum(axis.values()) >= _FEWEST_SERIES and own not in axis:
        yield Hit(
            reason="InstanceNumber grows the other way than it always does on this device",
            evidence={"direction": own, "usual": axis},
        )


def _witnesses(series: Series, _past: Past) -> Iterator[Hit]:
    """SliceLocation and the times of slices tell the same order as InstanceNumber."""
    if len(series.stack) < _FEW or not _single(series) or direction(series) is None:
        return
    numbers = [float(one.number or 0) for one in series.stack]
    for key in ("AcquisitionTime", "ContentTime", "InstanceCreationTime"):
        times = [_clock(one.one.text(key)) for one in series.stack]
        told = [time for time in times if time is not None]
        if len(told) == len(times) and len(set(told)) == len(told) and _correlation(numbers, told) < _AGAINST:
            yield Hit(reason=f"InstanceNumber runs against {key}", evidence={"attribute": key}, habit=key)
    locations = [one.one.number("SliceLocation") for one in series.stack]
    known = [place for place in locations if place is not None]
    if len(known) == len(locations) and len(set(known)) > 1:
        steps = np.diff(known)
        if not ((steps >= 0).all() or (steps <= 0).all()):
            yield Hit(reason="SliceLocation does not follow ImagePositionPatient", evidence={}, habit="SliceLocation")


def _single(series: Series) -> bool:
    along = np.array([one.along for one in series.stack])
    return len(along) > 1 and bool((np.diff(along) > _SAME_MM).all())


def _clock(value: str) -> float | None:
    if len(value) < 6 or not value[:6].isdigit():
        return None
    return int(value[:2]) * 3600 + int(value[2:4]) * 60 + float(value[4:])


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


RULES: tuple[Rule[Series], ...] = (
    Rule(name="series-uids", catches="two objects under one UID (duplicate-uid)", look=_uids),
    Rule(name="slice-spacing", catches="missing, moved, doubled and inserted slices", look=_spacing),
    Rule(name="slice-line", catches="slices shifted aside", look=_line),
    Rule(name="slice-numbers", catches="numbers against places (instance-order)", look=_numbers),
    Rule(name="number-direction", catches="numbers in reverse (instance-order)", look=_usual_direction),
    Rule(name="slice-witnesses", catches="numbers against times (instance-order)", look=_witnesses),
)
