"""The report's figures: drawings of estimates that the tables state as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from titer.report import svg
from titer.report.format import percent
from titer.report.numbers import Estimate
from titer.report.wording import estimate


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption; `legend` pairs samples with names and is empty where the drawing names its parts."""

    drawing: Markup
    caption: str
    legend: tuple[tuple[Markup, str], ...] = ()
    title: str = ""


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


def legend(names: Sequence[tuple[int, str]]) -> tuple[tuple[Markup, str], ...]:
    """Return the legend of series given as (style, name)."""
    return tuple((svg.swatch(style), name) for style, name in names)


def curves(series: Sequence[Series], x_label: str, y_label: str, caption: str) -> Figure:
    """Draw shares against a budget, with a confidence band around each line."""
    high = max((x for one in series for x, _ in one.points), default=1.0)
    plane = svg.Plane(height=300, x_range=(0, high or 1.0), y_range=(0, 1))
    parts = [plane.y_axis(svg.PERCENT_TICKS, y_label), plane.x_axis(_x_ticks(series, high), x_label)]
    drawn = [[(x, one) for x, one in line.points if one.mean is not None] for line in series]
    for line, points in zip(series, drawn, strict=True):
        with_bounds = [(x, one) for x, one in points if one.low is not None and one.high is not None]
        if len(with_bounds) > 1:
            upper = [(plane.x(x), plane.y(one.high or 0.0)) for x, one in with_bounds]
            lower = [(plane.x(x), plane.y(one.low or 0.0)) for x, one in with_bounds]
            parts.append(svg.band(upper, lower, line.style))
    for line, points in zip(series, drawn, strict=True):
        places = [(plane.x(x), plane.y(one.mean or 0.0)) for x, one in points]
        if places:
            parts.append(svg.polyline(places, line.style))
            parts.extend(svg.marker(x, y, line.style) for x, y in places)
    ends = [f"{line.name} {percent(points[-1][1].mean)}" for line, points in zip(series, drawn, strict=True) if points]
    label = f"{caption} At the largest budget: {'; '.join(ends)}."
    return Figure(svg.figure(300, label, *parts), caption, legend([(line.style, line.name) for line in series]))


def _x_ticks(series: Sequence[Series], high: float) -> list[tuple[float, str]]:
    """Return ticks at the budgets that were tested; round values where those would collide."""
    tested = sorted({x for line in series for x, _ in line.points})
    gaps = [after - before for before, after in pairwise(tested)]
    if tested and len(tested) <= 8 and min(gaps, default=high) >= 0.08 * high:
        return [(x, f"{x:g}") for x in tested]
    return [(x, f"{x:g}") for x in svg.nice_ticks(0, high)]


def steps(
    series: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], marks: Sequence[float], x_label: str, caption: str
) -> Figure:
    """Draw survival curves: the share not yet fooled at each distance; `marks` are the budgets of the plan."""
    high = max((points[-1][0] for _, _, points in series if points), default=1.0) or 1.0
    plane = svg.Plane(height=300, x_range=(0, high), y_range=(0, 1))
    ticks = [(x, f"{x:g}") for x in svg.nice_ticks(0, high)]
    parts = [plane.y_axis(svg.PERCENT_TICKS, "Not fooled (%)"), plane.x_axis(ticks, x_label)]
    parts += [
        svg.tag("path", d=f"M{plane.x(mark):.1f} {plane.top} V{plane.height - plane.bottom}", class_="mark")
        for mark in marks
        if mark <= high
    ]
    for _, style, points in series:
        path: list[tuple[float, float]] = []
        for distance, share in points:
            if path:
                path.append((plane.x(distance), path[-1][1]))
            path.append((plane.x(distance), plane.y(share)))
        if path:
            parts.append(svg.polyline(path, style, thin=True))
    label = f"{caption} " + "; ".join(
        f"{name}: {percent(points[-1][1])} at the right edge" for name, _, points in series if points
    )
    return Figure(svg.figure(300, label, *parts), caption, legend([(style, name) for name, style, _ in series]))


def dumbbells(rows: Sequence[Row], x_label: str, caption: str, title: str = "") -> Figure:
    """Draw before and after, one row each, with both intervals."""
    step = 46
    height = step * len(rows) + 56
    plane = svg.Plane(height=height, x_range=(0, 1), y_range=(0, 1), left=14, top=6, bottom=44)
    parts = [plane.x_axis(svg.PERCENT_TICKS, x_label, grid=True)]
    for index, row in enumerate(rows):
        y = plane.top + step * index + 32
        parts.append(svg.text(plane.left, y - 15, row.name, class_="t strong"))
        parts.extend(_dumbbell(plane, row, y))
    spoken = (f"{row.name}: {estimate(row.before)} before, {estimate(row.after)} after." for row in rows)
    label = " ".join([title, caption, *spoken]).strip()
    return Figure(svg.figure(height, label, *parts), caption, title=title)


def _dumbbell(plane: svg.Plane, row: Row, y: float) -> list[Markup]:
    parts: list[Markup] = []
    before, after = row.before.mean, row.after.mean
    if before is not None and after is not None:
        path = f"M{plane.x(before):.1f} {y:.1f} H{plane.x(after):.1f}"
        parts.append(svg.tag("path", d=path, class_=f"link s{row.style % svg.N_STYLES}"))
    # the two intervals are a hair apart in height, so that overlapping ones can both be read
    for value, hollow, shift in ((row.before, True, -3.0), (row.after, False, 3.0)):
        if value.low is not None and value.high is not None:
            parts.append(svg.whisker(plane.x(value.low), y + shift, plane.x(value.high), y + shift, row.style))
        if value.mean is not None:
            parts.append(svg.marker(plane.x(value.mean), y, row.style, hollow=hollow))
    return parts or [svg.text(plane.left, y + 4, "no result", class_="t muted")]


@dataclass(frozen=True, slots=True)
class Dot:
    """One defence in the trade-off chart; `doubted` where a sanity check failed."""

    name: str
    style: int
    clean: Estimate
    robust: Estimate
    doubted: bool


def scatter(dots: Sequence[Dot], caption: str) -> Figure:
    """Draw robust against clean accuracy, with both intervals; doubted numbers are hollow."""
    known = [dot for dot in dots if dot.clean.mean is not None and dot.robust.mean is not None]
    plane = svg.Plane(height=340, x_range=(0, 1), y_range=(0, 1))
    parts = [
        plane.y_axis(svg.PERCENT_TICKS, "Right under attack (%)"),
        plane.x_axis(svg.PERCENT_TICKS, "Right without attack (%)"),
        svg.tag("path", d=f"M{plane.x(0)} {plane.y(0)} L{plane.x(1)} {plane.y(1)}", class_="mark"),
        svg.text(plane.x(0.03), plane.y(0.93), "dashed: attack costs nothing", class_="t muted"),
    ]
    for dot in known:
        x, y = plane.x(dot.clean.mean or 0.0), plane.y(dot.robust.mean or 0.0)
        if dot.clean.low is not None and dot.clean.high is not None:
            parts.append(svg.whisker(plane.x(dot.clean.low), y, plane.x(dot.clean.high), y, dot.style))
        if dot.robust.low is not None and dot.robust.high is not None:
            parts.append(svg.whisker(x, plane.y(dot.robust.low), x, plane.y(dot.robust.high), dot.style))
        parts.append(svg.marker(x, y, dot.style, hollow=dot.doubted))
    label = f"{caption} " + " ".join(
        f"{dot.name}: {percent(dot.clean.mean)} without, {percent(dot.robust.mean)} under attack." for dot in known
    )
    entries = tuple(
        (svg.swatch(dot.style, hollow=dot.doubted), dot.name + (" – overestimated" if dot.doubted else ""))
        for dot in known
    )
    return Figure(svg.figure(340, label, *parts), caption, entries)


def headline(rows: Sequence[tuple[str, int, Estimate, bool]], caption: str) -> Figure:
    """Draw the first page's bars: name, style, share and whether the share is doubted."""
    step, height = 42, 42 * len(rows) + 4
    plane = svg.Plane(height=height, x_range=(0, 1), y_range=(0, 1), left=2, right=112, top=0, bottom=0, width=340)
    parts: list[Markup] = []
    for index, (name, style, value, doubted) in enumerate(rows):
        y = step * index + 20
        parts.append(svg.text(plane.left, y - 5, name))
        parts.append(svg.tag("rect", x=plane.left, y=y, width=plane.x(1) - plane.x(0), height=14, class_="track"))
        if value.mean is not None:
            kind = f"bar s{style % svg.N_STYLES}" + (" doubted" if doubted else "")
            parts.append(
                svg.tag("rect", x=plane.left, y=y, width=plane.x(value.mean) - plane.x(0), height=14, class_=kind)
            )
        if value.low is not None and value.high is not None:
            ends = f"M{plane.x(value.low):.1f} {y + 7} H{plane.x(value.high):.1f}"
            parts.append(svg.tag("path", d=ends, class_="range"))
            parts.append(svg.tag("path", d=ends, class_="range inner"))
        parts.append(
            svg.text(plane.x(1) + 8, y + 12, estimate(value).replace("\N{NO-BREAK SPACE}%", ""), class_="t strong")
        )
    label = f"{caption} " + "; ".join(f"{name}: {estimate(value)}" for name, _, value, _ in rows)
    return Figure(svg.figure(height, label, *parts, width=plane.width), caption)
