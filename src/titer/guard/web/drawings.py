"""Charts of the dashboard: small SVG made on the server, with a table's text for those who do not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 120
_LEFT, _BOTTOM, _TOP, _RIGHT = 44, 20, 10, 6


def columns(series: Mapping[str, Sequence[float]], said: str, ends: tuple[str, str]) -> Markup:
    """Return stacked columns.

    Args:
        series: values by name, equally many; the name is the class of its colour.
        said: what a screen reader says.
        ends: words under the left and the right end.
    """
    values = list(series.values())
    totals = [sum(part) for part in zip(*values, strict=True)]
    top = _top(max(totals, default=0.0))
    step = (WIDTH - _LEFT - _RIGHT) / max(len(totals), 1)
    marks = []
    for i in range(len(totals)):
        base = 0.0
        for name, one in series.items():
            if one[i] > 0:
                high = _height(one[i], top)
                y = HEIGHT - _BOTTOM - _height(base, top) - high
                marks.append(
                    f'<rect class="s-{escape(name)}" x="{_LEFT + i * step + 1:.1f}" y="{y:.1f}" '
                    f'width="{max(step - 2, 1):.1f}" height="{high:.1f}"/>'
                )
                base += one[i]
    return _framed("".join(marks), top, said, ends)


def lines(
    series: Mapping[str, Sequence[float | None]], said: str, ends: tuple[str, str], limit: float | None = None
) -> Markup:
    """Return lines with points, broken where there is no value; `limit` draws a dashed line."""
    known = [v for one in series.values() for v in one if v is not None]
    top = _top(max([*known, limit or 0.0], default=0.0))
    marks = []
    if limit is not None:
        y = HEIGHT - _BOTTOM - _height(limit, top)
        marks.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for number, one in enumerate(series.values()):
        step = (WIDTH - _LEFT - _RIGHT) / max(len(one), 1)
        points = [
            None if v is None else (_LEFT + (i + 0.5) * step, HEIGHT - _BOTTOM - _height(v, top))
            for i, v in enumerate(one)
        ]
        marks += [_path(points, number)]
    return _framed("".join(marks), top, said, ends)


def bar(score: float, threshold: float) -> Markup:
    """Return a detector's score as a bar against its threshold, which stands at two thirds."""
    share = min(max(score / threshold, 0.0), 1.5) / 1.5 if threshold > 0 else (1.0 if score > threshold else 0.0)
    kind = "over" if score > threshold else "under"
    said = f"score {score:.3g}, threshold {threshold:.3g}"
    return Markup(  # noqa: S704 - numbers only
        f'<svg class="bar" viewBox="0 0 150 14" role="img" aria-label="{said}" preserveAspectRatio="none">'
        f'<rect class="rail" width="150" height="14"/><rect class="{kind}" width="{150 * share:.1f}" height="14"/>'
        '<line class="limit" x1="100" x2="100" y1="0" y2="14"/></svg>'
    )


def _path(points: Sequence[tuple[float, float] | None], number: int) -> str:
    out, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        out.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    dots = "".join(f'<circle class="d{number % 6}" cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="2"/>' for p in points if p)
    return f'<path class="l{number % 6}" d="{" ".join(out)}"/>{dots}' if out else ""


def _framed(marks: str, top: float, said: str, ends: tuple[str, str]) -> Markup:
    floor = HEIGHT - _BOTTOM
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor - _height(v, top):.1f}" '
        f'y2="{floor - _height(v, top):.1f}"/><text x="{_LEFT - 5}" y="{floor - _height(v, top) + 5:.1f}" '
        f'text-anchor="end">{_short(v)}</text>'
        for v in (0.0, top / 2, top)
    )
    return Markup(  # noqa: S704 - numbers, and escaped words
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{grid}{marks}'
        f'<text x="{_LEFT}" y="{HEIGHT - 4}">{escape(ends[0])}</text>'
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(ends[1])}</text></svg>'
    )


def _height(value: float, top: float) -> float:
    return (HEIGHT - _BOTTOM - _TOP) * min(value / top, 1.0) if top > 0 else 0.0


def _top(most: float) -> float:
    """Return a round number at or above the largest value."""
    if most <= 0:
        return 1.0
    size = 1.0
    while size * 10 <= most:
        size *= 10
    while size > most:
        size /= 10
    return next(size * factor for factor in (1, 2, 4, 5, 10) if size * factor >= most)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
