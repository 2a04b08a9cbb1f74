"""The report's figures: what Matplotlib draws of the estimates that the tables state as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from titer.report import svg
from titer.report.format import percent
from titer.report.marks import (
    Figure,
    color,
    dashes,
    interval,
    legend,
    marker,
    round_ticks,
    share_axis,
    stack,
    value_axis,
)
from titer.report.numbers import Estimate
from titer.report.wording import estimate, plain_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a curve: a name, a style, and an estimate at each x."""

    name: str
    style: int
    points: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dumbbell chart: before (hollow) and after (solid)."""

    name: str
    style: int
    before: Estimate
    after: Estimate


@dataclass(frozen=True, slots=True)
class Dot:
    """One defence in the trade-off chart; `doubted` where a sanity check failed."""

    name: str
    style: int
    clean: Estimate
    robust: Estimate
    doubted: bool


def curves(
    name: str, series: Sequence[Series], x_label: str, y_label: str, caption: str, last: str = "At the largest budget"
) -> Figure:
    """Draw shares against a budget, with a confidence band around each line; `name` is the figure's own."""
    high = max((x for one in series for x, _ in one.points), default=1.0) or 1.0
    drawn = [(line, [(x, one) for x, one in line.points if one.mean is not None]) for line in series]
    with svg.canvas(name, 300) as drawing:
        axes = svg.plane(drawing, left=50, right=10, top=10, bottom=42)
        share_axis(axes, "y", y_label)
        axes.set(xlim=(-0.02 * high, 1.02 * high), xlabel=x_label)
        _budget_ticks(axes, series, high)
        for line, points in drawn:
            bounds = [(x, one.low, one.high) for x, one in points if one.low is not None and one.high is not None]
            if len(bounds) > 1:
                at, lower, upper = (list(side) for side in zip(*bounds, strict=True))
                axes.fill_between(at, lower, upper, color=color(line.style), alpha=0.12, linewidth=0)
            places = ([x for x, _ in points], [one.mean or 0.0 for _, one in points])
            kind = marker(line.style) | {"linewidth": 2, "linestyle": dashes(line.style)}
            axes.plot(*places, **kind, zorder=3 - 0.01 * line.style)
        ends = [f"{line.name} {percent(points[-1][1].mean)}" for line, points in drawn if points]
        label = f"{caption} {last}: {'; '.join(ends)}."
        picture = svg.inline(drawing, role="img", aria_label=label)
    return Figure(picture, caption, legend(name, [(line.style, line.name, False) for line in series]))


def _budget_ticks(axes: Axes, series: Sequence[Series], high: float) -> None:
    """Put ticks at the budgets that were tested; at round values where the words of those would collide."""
    tested = sorted({x for line in series for x, _ in line.points})
    words = [f"{x:g}" for x in tested]
    room = (0.02 + 0.025 * max(map(len, words), default=0)) * high
    if tested and all(after - before >= room for before, after in pairwise(tested)):
        axes.set_xticks(tested, words)
    else:
        round_ticks(axes)


def dumbbells(
    name: str, rows: Sequence[Row], x_label: str, caption: str, title: str = "", *, shares: bool = True
) -> Figure:
    """Draw before (upper) and after (lower), one row each, both with their intervals; `shares` or plain values."""
    spell = estimate if shares else plain_estimate
    names, ends = stack([row.name for row in rows], 52, 50)
    with svg.canvas(name, ends[-1] + 48) as drawing:
        axes = svg.plane(drawing, left=10, right=14, top=6, bottom=42)
        if shares:
            share_axis(axes, "x", x_label)
        else:
            value_axis(axes, x_label, [one for row in rows for one in (row.before, row.after)])
        axes.set(ylim=(ends[-1], 0), yticks=[])
        for row, words, end in zip(rows, names, ends, strict=True):
            axes.text(0, end - 30, words, va="bottom")
            _dumbbell(axes, row, end - 17)
        spoken = (f"{row.name}: {spell(row.before)} before, {spell(row.after)} after." for row in rows)
        picture = svg.inline(drawing, role="img", aria_label=" ".join([title, caption, *spoken]).strip())
    return Figure(picture, caption, title=title)


def _dumbbell(axes: Axes, row: Row, middle: float) -> None:
    """Draw one row; the two stand a little apart in height, so that intervals which overlap can both be read."""
    ends = [(row.before, middle - 5, True), (row.after, middle + 5, False)]
    known = [(one.mean, height) for one, height, _ in ends if one.mean is not None]
    if len(known) > 1:
        axes.plot(*zip(*known, strict=True), color=color(row.style), alpha=0.4, clip_on=False)
    for value, height, hollow in ends:
        interval(axes, value, height, row.style)
        if value.mean is not None:
            axes.plot(value.mean, height, **marker(row.style, hollow=hollow), zorder=3)
    if not known:
        axes.text(0, middle, "no result", va="center", color=svg.SOFT)


def scatter(name: str, dots: Sequence[Dot], caption: str) -> Figure:
    """Draw robust against clean accuracy, with both intervals; doubted numbers are hollow."""
    known = [dot for dot in dots if dot.clean.mean is not None and dot.robust.mean is not None]
    with svg.canvas(name, 340) as drawing:
        axes = svg.plane(drawing, left=50, right=14, top=10, bottom=42)
        share_axis(axes, "y", "Right under attack (%)")
        share_axis(axes, "x", "Right without attack (%)")
        axes.grid(visible=False, axis="x")
        axes.plot([0, 1], [0, 1], color=svg.SOFT, linestyle="dashed", linewidth=1)
        axes.text(0.03, 0.93, "dashed: attack costs nothing", va="center", color=svg.SOFT)
        for dot in known:
            interval(axes, dot.clean, dot.robust.mean or 0.0, dot.style)
            interval(axes, dot.robust, dot.clean.mean or 0.0, dot.style, upright=True)
            place = (dot.clean.mean or 0.0, dot.robust.mean or 0.0)
            axes.plot(*place, **marker(dot.style, hollow=dot.doubted), zorder=3)
        spoken = (f"{one.name}: {percent(one.clean.mean)} without, {percent(one.robust.mean)} under" for one in known)
        picture = svg.inline(drawing, role="img", aria_label=" ".join([caption, *(f"{one} attack." for one in spoken)]))
    entries = [(dot.style, dot.name + (" – overestimated" if dot.doubted else ""), dot.doubted) for dot in known]
    return Figure(picture, caption, legend(name, entries))


def headline(name: str, rows: Sequence[tuple[str, int, Estimate, bool]], caption: str) -> Figure:
    """Draw the first page's bars: name, style, share and whether the share is doubted."""
    names, ends = stack([words for words, *_ in rows], 49, 46)
    with svg.canvas(name, ends[-1], 334) as drawing:
        axes = svg.plane(drawing, left=2, right=118, top=0, bottom=0)
        axes.set(xlim=(0, 1), ylim=(ends[-1], 0))
        axes.set_axis_off()
        for words, (_, style, value, doubted), end in zip(names, rows, ends, strict=True):
            axes.text(0, end - 25, words, va="bottom", color=svg.SOFT)
            _bar(axes, value, style, end - 16, doubted=doubted)
        label = f"{caption} " + "; ".join(f"{words}: {estimate(value)}" for words, _, value, _ in rows)
        picture = svg.inline(drawing, role="img", aria_label=label)
    return Figure(picture, caption)


def _bar(axes: Axes, value: Estimate, style: int, middle: float, *, doubted: bool) -> None:
    """Draw one share as a bar with its interval and its number; a doubted one is an empty, dashed bar."""
    from matplotlib.patheffects import withStroke

    axes.barh(middle, 1, 14, color=svg.WASH, edgecolor=svg.RULE, linewidth=0.5, clip_on=False)
    if value.mean is not None:
        dashed: dict[str, Any] = {"color": svg.PAPER, "edgecolor": color(style), "linewidth": 1.4}
        kind = dashed | {"linestyle": (0, (3, 2))} if doubted else {"color": color(style)}
        axes.barh(middle, value.mean, 14, clip_on=False, **kind)
    if value.low is not None and value.high is not None:
        halo = withStroke(linewidth=5, foreground=svg.PAPER)
        ends = (value.low, value.high)
        axes.plot(ends, (middle, middle), color=svg.INK, solid_capstyle="butt", path_effects=[halo], clip_on=False)
    words = estimate(value).replace("\N{NO-BREAK SPACE}%", "")
    axes.annotate(words, (1, middle), (8, 0), textcoords="offset points", va="center_baseline")
