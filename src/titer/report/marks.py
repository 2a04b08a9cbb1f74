"""What every figure of the report is made of: markers, intervals, axes, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from titer.report import svg
from titer.report.numbers import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "p", "X")
_DASHES = ((), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2), (12, 4), (1, 2), (6, 2, 1, 2, 1, 2))
_SHARES = (0, 0.2, 0.4, 0.6, 0.8, 1)
LINE = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption; `legend` pairs samples with names and is empty where the drawing names its parts."""

    drawing: Markup
    caption: str
    legend: tuple[tuple[Markup, str], ...] = ()
    title: str = ""


def color(style: int) -> str:
    """Return the colour of a series."""
    return svg.SERIES[style % len(svg.SERIES)]


def dashes(style: int) -> Any:
    """Return the line style of a series: dashes and colour both tell it apart."""
    pattern = _DASHES[style % len(_DASHES)]
    return (0, pattern) if pattern else "solid"


def marker(style: int, *, hollow: bool = False) -> dict[str, Any]:
    """Return the marker of a series: shape and colour both tell it apart."""
    shape = _MARKERS[style % len(_MARKERS)]
    return {
        "color": color(style),
        "marker": shape,
        "markersize": (6.5 if shape in "sD" else 8) + (0 if hollow else 1),  # the edge of a solid one is lost
        "markerfacecolor": svg.PAPER if hollow else color(style),
        "markeredgecolor": color(style) if hollow else svg.PAPER,
        "markeredgewidth": 1.8 if hollow else 1,
        "clip_on": False,
    }


def interval(axes: Axes, value: Estimate, at: float, style: int, *, upright: bool = False) -> None:
    """Draw the interval of `value`, level unless `upright`; `at` is its place on the other axis."""
    if value.low is None or value.high is None:
        return
    # drawn about its own middle: nothing says that an interval is even about its mean, or holds it
    middle, half = (value.low + value.high) / 2, abs(value.high - value.low) / 2
    x, y = (at, middle) if upright else (middle, at)
    kind: dict[str, Any] = {"elinewidth": 1.4, "capsize": 4, "capthick": 1.4, "yerr" if upright else "xerr": half}
    axes.errorbar(x, y, **kind, fmt="none", color=color(style), clip_on=False)


def share_axis(axes: Axes, which: Literal["x", "y"], label: str) -> None:
    """Make one axis run from 0 to 100 %, with grid lines."""
    limits = {f"{which}lim": (0, 1), f"{which}ticks": _SHARES, f"{which}label": label}
    axes.set(**limits, **{f"{which}ticklabels": [f"{100 * share:.0f}" for share in _SHARES]})
    axes.grid(visible=True, axis=which)


def value_axis(axes: Axes, label: str, values: Sequence[Estimate]) -> None:
    """Make the x axis run from 0 past the largest of `values`, with grid lines."""
    ends = [end for one in values for end in (one.mean, one.high) if end is not None]
    axes.set(xlim=(0, 1.05 * max(ends, default=1.0) or 1.0), xlabel=label)
    round_ticks(axes)
    axes.grid(visible=True, axis="x")


def round_ticks(axes: Axes) -> None:
    """Put a few ticks at round values of the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")


def legend(name: str, entries: Sequence[tuple[int, str, bool]]) -> tuple[tuple[Markup, str], ...]:
    """Return the legend of series given as (style, name, hollow); hollow ones are a marker with no line."""
    from matplotlib.lines import Line2D

    samples = []
    for index, (style, words, hollow) in enumerate(entries):
        with svg.canvas(f"{name}/legend {index}", 16, 34) as drawing:
            line = "none" if hollow else dashes(style)
            kind: dict[str, Any] = {"linestyle": line, "linewidth": 2, "markevery": [1]}
            drawing.add_artist(Line2D([0, 0.5, 1], [0.5] * 3, **kind, **marker(style, hollow=hollow)))
            samples.append((svg.inline(drawing, "swatch", aria_hidden="true"), words))
    return tuple(samples)


def stack(names: Sequence[str], letters: int, row: int) -> tuple[list[str], list[int]]:
    """Return names broken into lines, and where the row of each ends; a row of one line is `row` high."""
    broken = [textwrap.fill(name, letters) for name in names]
    return broken, list(accumulate(row + LINE * name.count("\n") for name in broken))
