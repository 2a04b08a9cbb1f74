"""A pair of ECG signals as a trace on ECG paper: 25 mm a second, 10 mm a millivolt, clean and attacked overlaid.

The difference stands below each lead, magnified by a round factor. All sizes are millimetres of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from titer.report.drawings import Drawing
from titer.report.examples import Example
from titer.report.format import general

Floats = npt.NDArray[np.float64]

_SPEED, _GAIN, _BOX = 25.0, 10.0, 5
_FACTORS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_TALLEST = 5.0
"""Height of the magnified difference above and below its line at the most."""

_MOST_POINTS = 1500
_PIXELS = 400
"""Width of a panel on a screen, which text and lines are sized for."""

_BEYOND = 0.5
"""How far beyond the clean signal's range the paper reaches, in mV: a spike is cut off there."""

_MARGIN = 5.0
_SIZE, _INDENT = 13, 5
"""Height of the words, and where they begin, in pixels."""

_LETTER, _RISE = 0.6, 0.36
"""Of a text's size: the width of a letter (a wide font's mean), and how far the base line lies below the middle."""

_LONGEST = 12
_PAPER, _FINE, _COARSE = "#c8102e", 0.22, 0.5
_CLEAN, _ATTACKED = "var(--s0)", "var(--s2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lead:
    """One lead and its place on the paper: where it begins, where its zero lies, and where that of its difference does.

    `seen` is the attacked signal, cut off where it leaves the paper.
    """

    name: str
    clean: Floats
    attacked: Floats
    seen: Floats
    top: float
    zero: float
    apart: float


def draw(example: Example, index: int) -> Drawing:
    """Return the pair `index` of an example, both [leads, samples] in mV, on ECG paper."""
    told: dict[str, Any] = example.meta.get("drawing") or {}
    clean, attacked = (np.atleast_2d(one[index].astype(np.float64)) for one in (example.clean, example.adversarial))
    rate = float(told.get("rate") or 0.0)
    names = [str(name) for name in told.get("leads") or []]
    if len(names) != len(clean):
        names = [f"lead {i + 1}" for i in range(len(clean))]
    factor = _factor(float(np.abs(attacked - clean).max()))
    leads, height = _placed(names, clean, attacked)
    duration = clean.shape[1] / rate * _SPEED if rate else float(2 * _BOX)
    # The words have a margin of their own, so much of the width as they take: none of them lies over a trace.
    aside = _aside([lead.name for lead in leads], factor) / _PIXELS
    width = _boxes(max((duration + _MARGIN) / (1 - aside), height * 0.9))
    left = aside * width
    marks = [_grid(width, height), *(_traces(lead, left, duration, factor) for lead in leads)]
    marks.append(_labels(leads, factor, width / _PIXELS))
    label = f"ECG trace, clean and attacked, and their difference times {factor:g}"
    body = Markup("").join(marks)
    return Drawing(
        markup=Markup(
            '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{label}" '
            'style="width:100%;height:auto;max-width:{most}px">{body}</svg>'
        ).format(w=_short(width), h=_short(height), label=label, most=_PIXELS + 120, body=body),
        note=_note(rate, factor, clean.shape[1], cut=any(bool((lead.seen != lead.attacked).any()) for lead in leads)),
    )


def _note(rate: float, factor: float, samples: int, *, cut: bool) -> str:
    time = "25 mm/s" if rate else "sampling rate not known"
    thinned = f"; every {_stride(samples)}th sample is drawn" if _stride(samples) > 1 else ""
    spikes = f"; spikes are cut off {_BEYOND:g} mV beyond the clean trace" if cut else ""
    return (
        f"{time}, 10 mm/mV, enlarged: a large square is 0.2 s and 0.5 mV. Black: clean. Orange: attacked. "
        f"Below: the difference × {factor:g}, a large square is {general(0.5 / factor, 3)} mV{thinned}{spikes}."
    )


def _factor(largest: float) -> float:
    """Return the largest round factor that keeps the difference within its strip."""
    return max([one for one in _FACTORS if largest * one * _GAIN <= _TALLEST] or _FACTORS[:1])


def _placed(names: list[str], clean: Floats, attacked: Floats) -> tuple[list[_Lead], float]:
    """Return the leads one below the other, each zero on a thick line, and the height of the paper."""
    leads, top = [], 0.0
    for name, before, after in zip(names, clean, attacked, strict=True):
        seen = np.clip(after, before.min() - _BEYOND, before.max() + _BEYOND)
        zero = top + _BOX + _boxes(max(float(seen.max()), float(before.max()), 0.0) * _GAIN)
        apart = zero + _boxes(-min(float(seen.min()), float(before.min()), 0.0) * _GAIN) + _BOX
        leads.append(_Lead(name=name, clean=before, attacked=after, seen=seen, top=top, zero=zero, apart=apart))
        top = apart + _BOX
    return leads, top


def _grid(width: float, height: float) -> Markup:
    """Return the paper's lines: thin ones each millimetre, thick ones each five."""
    parts = []
    for step, opacity in ((1, _FINE), (_BOX, _COARSE)):
        upright = "".join(f"M{x} 0V{_short(height)}" for x in range(0, int(width) + 1, step))
        level = "".join(f"M0 {y}H{_short(width)}" for y in range(0, int(height) + 1, step))
        parts.append(
            Markup(
                '<path d="{lines}" fill="none" stroke="{paper}" stroke-opacity="{opacity}" stroke-width="1" '
                'vector-effect="non-scaling-stroke"/>'
            ).format(lines=upright + level, paper=_PAPER, opacity=opacity)
        )
    return Markup("").join(parts)


def _traces(lead: _Lead, left: float, duration: float, factor: float) -> Markup:
    """Return one lead: both traces, the line of no difference, and the magnified difference."""
    change = (lead.attacked - lead.clean) * factor
    lines = [
        _line(lead.clean, left, lead.zero, duration, _CLEAN, 2.6),
        _line(lead.seen, left, lead.zero, duration, _ATTACKED, 1.3),
        _line(np.zeros(2), left, lead.apart, duration, "var(--soft)", 0.8),
        _line(change, left, lead.apart, duration, _ATTACKED, 1.3),
    ]
    return Markup("").join(lines)


def _aside(names: list[str], factor: float) -> float:
    """Return the width of the margin that holds the words, in pixels."""
    longest = max(len(words) for words in (_multiple(factor), *map(_named, names)))
    return _INDENT + (longest + 1) * _LETTER * _SIZE


def _labels(leads: list[_Lead], factor: float, pixel: float) -> Markup:
    """Return the name of each lead and what its difference is multiplied by, left of their traces."""
    # Name and multiple stand half a lead apart: where many leads share the height, they are as small as that asks.
    size = min(_SIZE * pixel, *((lead.apart + _BOX - lead.top) * 0.45 for lead in leads))
    parts = []
    for lead in leads:
        middle = (lead.top + lead.apart - _BOX) / 2
        parts.append(_text(_named(lead.name), middle, size, pixel, lead.name))
        parts.append(_text(_multiple(factor), lead.apart, size, pixel, f"difference × {factor:g}"))
    return Markup("").join(parts)


def _named(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _multiple(factor: float) -> str:
    return f"diff. × {factor:g}"


def _line(values: Floats, left: float, zero: float, duration: float, colour: str, thickness: float) -> Markup:
    stride = _stride(len(values))
    at = left + np.arange(len(values))[::stride] * (duration / max(len(values) - 1, 1))
    points = " ".join(f"{_short(x)},{_short(zero - _GAIN * y)}" for x, y in zip(at, values[::stride], strict=True))
    return Markup(
        '<polyline points="{points}" fill="none" style="stroke:{colour}" stroke-width="{thickness}" '
        'stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
    ).format(points=points, colour=colour, thickness=thickness)


def _text(words: str, middle: float, size: float, pixel: float, whole: str) -> Markup:
    """Return words beside the height `middle`; `whole` is shown where the pointer rests on them."""
    return Markup(
        '<text x="{x}" y="{y}" font-size="{size}" style="fill:var(--ink);stroke:var(--paper);stroke-width:{halo};'
        'paint-order:stroke"><title>{whole}</title>{words}</text>'
    ).format(
        x=_short(_INDENT * pixel), y=_short(middle + _RISE * size), size=_short(size), halo=_short(3 * pixel),
        whole=escape(whole), words=escape(words),
    )  # fmt: skip


def _stride(samples: int) -> int:
    return -(-samples // _MOST_POINTS)


def _boxes(size: float) -> float:
    """Return a length rounded up to whole large squares."""
    return float(np.ceil(size / _BOX - 1e-9) * _BOX)


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
