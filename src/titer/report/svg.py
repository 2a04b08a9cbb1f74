"""A small chart kit: inline SVG coloured by the style sheet, so that one drawing suits light, dark and print.

Every figure is narrow (420 units wide): on a phone it fills the width with its text still legible, on a desk two stand
side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 420
N_STYLES = 8
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "6 2 1 2 1 2")
_UP = "M0 -5 L4.8 3.6 L-4.8 3.6 Z"
_MARKERS = (
    "M-4 -4 H4 V4 H-4 Z",
    _UP,
    "M0 -5.4 L5.4 0 L0 5.4 L-5.4 0 Z",
    "M0 5 L4.8 -3.6 L-4.8 -3.6 Z",
    "M-1.6 -5 H1.6 V-1.6 H5 V1.6 H1.6 V5 H-1.6 V1.6 H-5 V-1.6 H-1.6 Z",
    "M0 -5.2 L4.9 -1.6 L3.1 4.2 L-3.1 4.2 L-4.9 -1.6 Z",
    "M-5 -2.4 L-2.4 -5 L0 -2.6 L2.4 -5 L5 -2.4 L2.6 0 L5 2.4 L2.4 5 L0 2.6 L-2.4 5 L-5 2.4 L-2.6 0 Z",
)


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Return one SVG element; text and attribute values are escaped, `class_` becomes `class`, `_` becomes `-`."""
    parts = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value != ""
    )
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{parts}>{inner}</{name}>")  # noqa: S704 - every part was escaped above


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def figure(height: float, label: str, *children: str, width: float = WIDTH) -> Markup:
    """Return a whole drawing; `label` is its text alternative."""
    return tag("svg", *children, class_="chart", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "t") -> Markup:
    """Return a line of text."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def marker(x: float, y: float, style: int, *, hollow: bool = False) -> Markup:
    """Return the marker of one series: shape and colour both tell it apart."""
    kind = f"s{style % N_STYLES} {'hollow' if hollow else 'solid'}"
    if style % N_STYLES == 0:
        return tag("circle", cx=x, cy=y, r=4.4, class_=kind)
    return tag("path", d=_MARKERS[style % N_STYLES - 1], transform=f"translate({x:.2f} {y:.2f})", class_=kind)


def polyline(points: Sequence[tuple[float, float]], style: int, *, thin: bool = False) -> Markup:
    """Return the line of one series: dashes and colour both tell it apart."""
    path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    kind = f"line s{style % N_STYLES}" + (" thin" if thin else "")
    return tag("path", d=path, class_=kind, stroke_dasharray=_DASHES[style % N_STYLES])


def band(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], style: int) -> Markup:
    """Return a shaded confidence band."""
    outline = [*upper, *reversed(lower)]
    return tag(
        "path", d="M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + " Z", class_=f"band s{style % N_STYLES}"
    )


def whisker(x1: float, y1: float, x2: float, y2: float, style: int) -> Markup:
    """Return an error bar between two points, with end caps."""
    across = abs(y2 - y1) < abs(x2 - x1)
    cap = "M{0:.1f} {1:.1f} v6" if across else "M{0:.1f} {1:.1f} h6"
    ends = [(x1, y1 - 3), (x2, y2 - 3)] if across else [(x1 - 3, y1), (x2 - 3, y2)]
    path = f"M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f} " + " ".join(cap.format(*end) for end in ends)
    return tag("path", d=path, class_=f"whisker s{style % N_STYLES}")


def swatch(style: int, *, hollow: bool = False) -> Markup:
    """Return the legend's sample of one series."""
    line = polyline([(0, 8), (34, 8)], style)
    drawing = [marker(17, 8, style, hollow=True)] if hollow else [line, marker(17, 8, style)]
    return tag("svg", *drawing, class_="swatch", viewBox="0 0 34 16", aria_hidden="true")


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round tick values that span `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Plane:
    """The plotting area of one chart, and the map from data to drawing units.

    Attributes:
        height: height of the whole drawing.
        x_range: data values at the left and right edge.
        y_range: data values at the bottom and top edge.
        left: margin, in drawing units; `right`, `top` and `bottom` alike.
    """

    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 46
    right: float = 14
    top: float = 12
    bottom: float = 44
    width: float = WIDTH

    def x(self, value: float) -> float:
        """Map a data value to the drawing, kept inside the area."""
        low, high = self.x_range
        share = (value - low) / ((high - low) or 1.0)
        return self.left + min(1.0, max(0.0, share)) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Map a data value to the drawing, kept inside the area."""
        low, high = self.y_range
        share = (value - low) / ((high - low) or 1.0)
        return self.height - self.bottom - min(1.0, max(0.0, share)) * (self.height - self.top - self.bottom)

    def x_axis(self, ticks: Sequence[tuple[float, str]], label: str, *, grid: bool = False) -> Markup:
        """Return the horizontal axis with its ticks and label."""
        base = self.height - self.bottom
        parts = [tag("path", d=f"M{self.left:g} {base:g} H{self.width - self.right:g}", class_="axis")]
        for value, words in ticks:
            at = self.x(value)
            start = self.top if grid else base + 4
            parts.append(tag("path", d=f"M{at:.1f} {start:.1f} V{base:.1f}", class_="grid" if grid else "axis"))
            parts.append(text(at, base + 17, words, anchor="middle"))
        middle = (self.left + self.width - self.right) / 2
        parts.append(text(middle, self.height - 6, label, anchor="middle", class_="t label"))
        return Markup("").join(parts)

    def y_axis(self, ticks: Sequence[tuple[float, str]], label: str) -> Markup:
        """Return the vertical axis: grid lines, ticks and a label."""
        parts = []
        for value, words in ticks:
            at = self.y(value)
            parts.append(tag("path", d=f"M{self.left:g} {at:.1f} H{self.width - self.right:g}", class_="grid"))
            parts.append(text(self.left - 6, at + 4, words, anchor="end"))
        middle = (self.top + self.height - self.bottom) / 2
        turned = f"rotate(-90 12 {middle:.1f})"
        words = tag("text", label, x=12.0, y=middle, text_anchor="middle", class_="t label", transform=turned)
        return Markup("").join([*parts, words])


PERCENT_TICKS = tuple((share / 100, str(share)) for share in (0, 20, 40, 60, 80, 100))
