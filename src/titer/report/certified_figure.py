"""The figure of certified accuracy against the radius, with what attacks left at the budgets beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titer.report import svg
from titer.report.certified_rows import CertifiedCurve
from titer.report.format import percent
from titer.report.marks import Figure, color, dashes, interval, legend, marker, round_ticks, share_axis
from titer.report.numbers import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 0.016
_FEW = 4  # bands of more series would hide one another


@dataclass(frozen=True, slots=True)
class Line:
    """One defence of the figure: name and style, what is proven at each radius, and what attacks left at budgets."""

    name: str
    style: int
    curve: CertifiedCurve
    points: tuple[tuple[float, Estimate], ...]


def certificate_curves(
    name: str, lines: Sequence[Line], x_label: str, y_label: str, caption: str, title: str
) -> Figure:
    """Draw each curve with its band, and the points that attacks left, joined to the curve by the gap between them."""
    end = max(line.curve.radii[-1] for line in lines)
    with svg.canvas(name, 320) as drawing:
        axes = svg.plane(drawing, left=50, right=14, top=10, bottom=42)
        share_axis(axes, "y", y_label)
        axes.set(xlim=(-0.02 * end, 1.03 * end), xlabel=x_label)
        round_ticks(axes)
        for place, line in enumerate(lines):
            _steps(axes, line, band=0.12 if len(lines) <= _FEW else 0.06)
            _points(axes, line, (place - (len(lines) - 1) / 2) * _APART * end)
        picture = svg.inline(drawing, role="img", aria_label=" ".join([title, caption, *map(_spoken, lines)]))
    return Figure(picture, caption, legend(name, [(line.style, line.name, False) for line in lines]), title)


def _steps(axes: Axes, line: Line, *, band: float) -> None:
    """Draw the curve: a share holds up to its radius, so it falls behind it."""
    curve = line.curve
    axes.fill_between(curve.radii, curve.low, curve.high, step="pre", color=color(line.style), alpha=band, linewidth=0)
    kind: dict[str, Any] = {"color": color(line.style), "linestyle": dashes(line.style), "linewidth": 1.8}
    axes.step(curve.radii, curve.shares, where="pre", **kind)


def _points(axes: Axes, line: Line, shift: float) -> None:
    for at, value in line.points:
        if value.mean is None:
            continue
        proven = share_at(line.curve, at)
        axes.plot([at + shift] * 2, [proven, value.mean], color=color(line.style), linewidth=1, alpha=0.55)
        interval(axes, value, at + shift, line.style, upright=True)
        axes.plot(at + shift, value.mean, **marker(line.style), zorder=3)


def share_at(curve: CertifiedCurve, radius: float) -> float:
    """Return the share that reaches a radius: that of the first place of the curve at or behind it."""
    reached = [share for at, share in zip(curve.radii, curve.shares, strict=True) if at >= radius * (1 - 1e-6)]
    return reached[0] if reached else 0.0


def _spoken(line: Line) -> str:
    parts = [
        f"at {at:g} {percent(share_at(line.curve, at))} proven, {percent(value.mean)} not broken"
        for at, value in line.points
    ]
    return f"{line.name}: {'; '.join(parts) or percent(line.curve.shares[-1]) + ' at the right edge'}."
