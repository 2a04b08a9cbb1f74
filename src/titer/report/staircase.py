"""The figure of robust accuracy against the budget, as a least-perturbation attack and all others found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titer.report import svg
from titer.report.format import percent
from titer.report.marks import Figure, color, dashes, interval, legend, marker, round_ticks, share_axis
from titer.report.numbers import Estimate
from titer.report.survival import Staircase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 0.011
_FEW = 4  # bands of more series would hide one another


@dataclass(frozen=True, slots=True)
class Stairs:
    """One defence of the figure.

    Attributes:
        name: the defence's title.
        style: its colour, dashes and marker.
        line: what the least-perturbation attack left at each distance.
        strongest: at each budget, what the strongest fixed-budget attack left.
        others: at each budget, what every other fixed-budget attack left.
    """

    name: str
    style: int
    line: Staircase
    strongest: tuple[tuple[float, Estimate], ...]
    others: tuple[tuple[float, float], ...]


def staircase(name: str, stairs: Sequence[Stairs], x_label: str, y_label: str, caption: str) -> Figure:
    """Draw the whole staircase of each defence with its band, and the other attacks' points on the same axes."""
    end = max(one.line.distances[-1] for one in stairs)
    with svg.canvas(name, 320) as drawing:
        axes = svg.plane(drawing, left=50, right=10, top=10, bottom=42)
        share_axis(axes, "y", y_label)
        axes.set(xlim=(-0.02 * end, end), xlabel=x_label)
        round_ticks(axes)
        budgets = sorted({at for one in stairs for at, _ in one.strongest})
        axes.vlines(budgets, 0, 1, colors=svg.RULE, linestyles="dashed", linewidth=1)
        for place, one in enumerate(stairs):
            _line(axes, one, end, band=0.12 if len(stairs) <= _FEW else 0.07)
            # a little apart, so that points of one budget can all be read
            _points(axes, one, (place - (len(stairs) - 1) / 2) * _APART * end)
        picture = svg.inline(drawing, role="img", aria_label=f"{caption} {' '.join(map(_spoken, stairs))}")
    return Figure(picture, caption, legend(name, [(one.style, one.name, False) for one in stairs]))


def _line(axes: Axes, one: Stairs, end: float, *, band: float) -> None:
    at = (*one.line.distances, end)
    shares, low, high = ((*values, values[-1]) for values in (one.line.shares, one.line.low, one.line.high))
    axes.fill_between(at, low, high, step="post", color=color(one.style), alpha=band, linewidth=0)
    kind: dict[str, Any] = {"color": color(one.style), "linestyle": dashes(one.style), "linewidth": 1.6}
    axes.step(at, shares, where="post", **kind)


def _points(axes: Axes, one: Stairs, shift: float) -> None:
    if one.others:
        x, y = zip(*((at + shift, share) for at, share in one.others), strict=True)
        axes.plot(x, y, linestyle="none", marker=".", markersize=4, color=color(one.style), alpha=0.6, clip_on=False)
    for at, value in one.strongest:
        interval(axes, value, at + shift, one.style, upright=True)
        axes.plot(at + shift, value.mean or 0.0, **marker(one.style), zorder=3)


def _spoken(one: Stairs) -> str:
    """Say what the picture shows: the share left at each budget, by the least perturbation and by the strongest."""
    parts = [
        f"{share_at(one.line, at)} left at {at:g}, {percent(value.mean)} by the strongest"
        for at, value in one.strongest
    ]
    last = f"{percent(one.line.shares[-1])} left at the right edge"
    return f"{one.name}: {'; '.join([*parts, last])}."


def share_at(line: Staircase, distance: float) -> str:
    """Return the share not fooled within `distance`, in words."""
    left = [share for at, share in zip(line.distances, line.shares, strict=True) if at <= distance]
    return percent(left[-1] if left else None)
