"""The figure of attack success by source and target."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from titer.report import svg
from titer.report.format import UNKNOWN, percent
from titer.report.marks import Figure
from titer.report.numbers import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = 132
_ROW = 40
_HEAD = 34
_DARKEST = 0.55  # the numbers stay legible on it, on either background


def letter(index: int) -> str:
    """Return the letter that a target has in the figure and in the table: A, B, ... Z, AA."""
    lead, last = divmod(index, len(ascii_uppercase))
    return (ascii_uppercase[lead - 1] if lead else "") + ascii_uppercase[last]


def heatmap(
    name: str,
    sources: Sequence[str],
    targets: Sequence[str],
    success: Sequence[Sequence[Estimate]],
    own: Sequence[int],
    caption: str,
    title: str = "",
) -> Figure:
    """Draw a matrix of shares: one row a source, one column a target, the darker the more succeed.

    `own` is each source's column where source and target are one, -1 for a source that is no target: that cell is
    outlined. Targets go by letters; a source that is a target carries its letter.
    """
    with svg.canvas(name, _HEAD + _ROW * len(sources) + 2) as drawing:
        axes = svg.plane(drawing, left=_NAMES, right=2, top=_HEAD, bottom=2)
        axes.set(xlim=(0, len(targets)), ylim=(len(sources), 0))
        axes.set_axis_off()
        for column in range(len(targets)):
            axes.annotate(letter(column), (column + 0.5, 0), (0, 6), textcoords="offset points", ha="center")
        axes.annotate("found on", (0, 0), (2 - _NAMES, 6), textcoords="offset points", color=svg.SOFT)
        axes.annotate("shown to", (0, 0), (0, 20), textcoords="offset points", color=svg.SOFT)
        for row, words in enumerate(sources):
            label = f"{letter(own[row])}  {words}" if own[row] >= 0 else words
            short = textwrap.fill(label, 21, max_lines=2, placeholder=" …")
            axes.annotate(short, (0, row + 0.5), (2 - _NAMES, 0), textcoords="offset points", va="center")
            for column, value in enumerate(success[row]):
                _cell(axes, row, column, value, own=own[row] == column)
        spoken = " ".join(_spoken(words, targets, success[row]) for row, words in enumerate(sources))
        picture = svg.inline(drawing, role="img", aria_label=f"{caption} {spoken}")
    return Figure(picture, caption, title=title)


def _cell(axes: Axes, row: int, column: int, value: Estimate, *, own: bool) -> None:
    from matplotlib.patches import Rectangle

    corner = (column + 0.03, row + 0.04)
    if value.mean is not None:
        depth = _DARKEST * value.mean
        axes.add_patch(Rectangle(corner, 0.94, 0.92, color=svg.SERIES[2], alpha=depth, linewidth=0))
    edge, width = (svg.INK, 2.0) if own else (svg.RULE, 0.8)
    axes.add_patch(Rectangle(corner, 0.94, 0.92, facecolor="none", edgecolor=edge, linewidth=width))
    words = UNKNOWN if value.mean is None else percent(value.mean, 0).removesuffix("\N{NO-BREAK SPACE}%")
    weight = "bold" if own else "normal"
    axes.text(column + 0.5, row + 0.5, words, ha="center", va="center_baseline", fontweight=weight)


def _spoken(source: str, targets: Sequence[str], values: Sequence[Estimate]) -> str:
    pairs = (f"{percent(value.mean)} on {target}" for target, value in zip(targets, values, strict=True))
    return f"Found on {source}: {'; '.join(pairs)}."
