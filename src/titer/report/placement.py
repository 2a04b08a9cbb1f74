"""Where names may stand in a drawing: beside their points, over no point, no line to a point and no other name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_AIR = 2.0
"""Free room around a name, and between a line to a point and other points."""

_FAR = (3.0, 10.0, 18.0, 28.0, 40.0, 54.0)
_TURNS = 16
_TOUCHING = 4.0
"""Of a point and its name that are nearer than so, no line says that they belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where the name of point `point` stands: its box (left, bottom, right, top).

    `end` is where the line from the point meets the box; None where the name is so near that there is no line.
    """

    point: int
    box: tuple[float, float, float, float]
    end: tuple[float, float] | None


def spots(points: Floats, named: Sequence[int], sizes: Floats, area: tuple[float, float], most: int) -> list[Spot]:
    """Return where names stand; one that finds no room near its point is left out, and the next has its turn.

    Args:
        points: float[N, 2], every point of the drawing, from the lower left corner of its area.
        named: which of them have names, the most important first.
        sizes: float[len(named), 2], width and height of each name, all in the same unit (points of 1/72 inch).
        area: width and height that names stay inside.
        most: how many names at the most.
    """
    found: list[Spot] = []
    lines: list[Floats] = []
    for one, size in zip(named, sizes, strict=True):
        boxes, ends = _around(points[one], size)
        for place in _clear(boxes, ends, one, points, area).nonzero()[0]:
            line, box = np.stack([points[one], ends[place]]), boxes[place]
            if not any(_meet(box, line, np.array(spot.box), its) for spot, its in zip(found, lines, strict=True)):
                found.append(_spot(one, box, ends[place], led=_length(line) > _TOUCHING))
                lines.append(line)
                break
        if len(found) == most:
            break
    return found


def _spot(point: int, box: Floats, end: Floats, *, led: bool) -> Spot:
    left, bottom, right, top = map(float, box)
    return Spot(point=point, box=(left, bottom, right, top), end=(float(end[0]), float(end[1])) if led else None)


def _around(point: Floats, size: Floats) -> tuple[Floats, Floats]:
    """Return boxes [P, 4] around a point, the nearest first, above and below before beside it, and ends [P, 2]."""
    angles = np.arange(_TURNS) * (2 * np.pi / _TURNS)
    angles = angles[np.argsort(np.abs(np.cos(angles)).round(6), kind="stable")]
    ways = np.stack([np.cos(angles), np.sin(angles)], 1).round(6)
    # Each box touches the circle of its distance from outside.
    middles = np.concatenate([point + ways * far + np.sign(ways) * size / 2 for far in _FAR])
    boxes = np.concatenate([middles - size / 2, middles + size / 2], 1)
    return boxes, np.clip(point, boxes[:, :2], boxes[:, 2:])


def _clear(boxes: Floats, ends: Floats, own: int, points: Floats, area: tuple[float, float]) -> Flags:
    """Return bool[P]: inside the area, over no point, and with no other point at the line to it."""
    point, far = points[own], np.hypot(*(points - points[own]).T) > _AIR
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= area).all(1)
    low, high = boxes[:, None, :2] - _AIR, boxes[:, None, 2:] + _AIR
    covered = np.any(np.all((points > low) & (points < high), axis=2), axis=1)
    # A point may lie on its twin: what leads to one leads to the other.
    crossed = (_distances(points[far], point, ends) < _AIR).any(1)
    led = np.hypot(*(ends - point).T) > _TOUCHING
    clear: Flags = inside & ~covered & ~(crossed & led)
    return clear


def _distances(points: Floats, start: Floats, ends: Floats) -> Floats:
    """Return float[P, N], how far each point is from the line between `start` and each of the `ends` [P, 2]."""
    ways = ends - start
    length = np.maximum((ways**2).sum(1, keepdims=True), 1e-12)
    share = (ways @ (points - start).T / length).clip(0, 1)
    distances: Floats = np.linalg.norm(points - start - share[:, :, None] * ways[:, None], axis=2)
    return distances


def _meet(box: Floats, line: Floats, other: Floats, its: Floats) -> bool:
    """Return whether two names overlap, or the line to one of them runs through the other."""
    overlap = bool((box[:2] - _AIR < other[2:]).all() and (box[2:] + _AIR > other[:2]).all())
    return overlap or _through(line, other) or _through(its, box)


def _through(line: Floats, box: Floats) -> bool:
    steps = np.linspace(0, 1, 33)[:, None]  # closer to each other than any name is high
    path = line[0] + steps * (line[1] - line[0])
    return bool(((path > box[:2] - _AIR) & (path < box[2:] + _AIR)).all(1).any())


def _length(line: Floats) -> float:
    return float(np.hypot(*(line[1] - line[0])))
