"""Explanations as pictures: heat on a grey image for images, bars of the heaviest features for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from titer.report import svg
from titer.report.format import percent
from titer.report.pictures import Floats, picture, to_planes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRONG = 0.99
_DENSEST = 0.85
_LARGEST = 224
_BAR = 40
_MIDGREY = 0.45


def grey(image: Floats, value_range: Sequence[float] | None) -> Floats:
    """Return an image, or the middle slice of a volume, [C, H, W] as [H, W] from 0 black to 1 white."""
    planes = to_planes(image, channels_first=True).mean(axis=2)
    low, high = value_range or (float(planes.min()), float(planes.max()))
    return np.asarray(np.clip((planes - low) / ((high - low) or 1.0), 0, 1), dtype=np.float32)


def strength(saliency: Floats) -> Floats:
    """Return attributions [C, H, W] as [H, W] from 0 to 1: sizes whatever the sign, 1 from the 99th percentile on.

    One pixel that stands out would leave all others without colour.
    """
    size = to_planes(np.abs(saliency).sum(axis=0, keepdims=True), channels_first=True)[:, :, 0]
    top = float(np.quantile(size, _STRONG)) or float(size.max())
    return np.asarray(np.clip(size / (top or 1.0), 0, 1), dtype=np.float32)


def heat(image: Floats, weight: Floats) -> str:
    """Return a grey image [H, W] under its heat [H, W], both 0 to 1, as a PNG data URI; without weight it shows."""
    stride = max(1, -(-max(image.shape) // _LARGEST))
    image, weight = image[::stride, ::stride], weight[::stride, ::stride]
    return picture(_blended(image, weight), 0.0, 1.0)


def scale() -> str:
    """Return the legend: a mid-grey strip under heat from none, left, to the strongest, right."""
    weight = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (10, 1))
    return picture(_blended(np.full_like(weight, _MIDGREY), weight), 0.0, 1.0)


def _blended(image: Floats, weight: Floats) -> Floats:
    """Return [H, W, 3]: the more weight, the less of the image shows through."""
    import matplotlib as mpl

    colours = mpl.colormaps["plasma"](weight)[:, :, :3]
    cover = (_DENSEST * weight)[:, :, None]
    return np.asarray((1 - cover) * image[:, :, None] + cover * colours, dtype=np.float32)


def weights(saliency: Floats) -> npt.NDArray[np.float64]:
    """Return attributions of a table's row as signed shares of all weight, [D]; zeros where there is none."""
    flat = saliency.reshape(-1).astype(np.float64)
    total = float(np.abs(flat).sum())
    return flat / total if total else flat


def heaviest(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], most: int) -> list[int]:
    """Return the features with the largest weight in either, heaviest first."""
    size = np.maximum(np.abs(before), np.abs(after))
    return [int(place) for place in np.argsort(-size, kind="stable")[:most] if size[place] > 0]


def bars(name: str, rows: Sequence[tuple[str, float, float]], spoken: str) -> Markup:
    """Draw features with their weight before (hollow) and under attack (solid): right of the line speaks for."""
    span = max((abs(value) for _, *both in rows for value in both), default=0.0) or 1.0
    with svg.canvas(name, _BAR * len(rows) + 40) as drawing:
        axes = svg.plane(drawing, left=10, right=14, top=2, bottom=38)
        axes.set(
            xlim=(-1.08 * span, 1.08 * span),
            ylim=(len(rows), 0),
            yticks=[],
            xlabel="against   ←   share of all weight (%)   →   for",
        )
        axes.axvline(0, color=svg.SOFT, linewidth=1)
        _percent_ticks(axes)
        for at, (words, before, after) in enumerate(rows):
            axes.annotate(words, (0, at), (2, -13), xycoords=("axes fraction", "data"), textcoords="offset points")
            _bar(axes, at + 0.6, before, hollow=True)
            _bar(axes, at + 0.82, after, hollow=False)
        told = "; ".join(
            f"{words}: {percent(before)} before, {percent(after)} under attack" for words, before, after in rows
        )
        return svg.inline(drawing, role="img", aria_label=f"{spoken} {told}.")


def _bar(axes: Axes, at: float, value: float, *, hollow: bool) -> None:
    face = svg.PAPER if hollow else svg.SERIES[2]
    axes.barh(at, value, 0.18, color=face, edgecolor=svg.SERIES[0] if hollow else svg.SERIES[2], linewidth=1.2)


def _percent_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{100 * value:.0f}".replace("-", "−")))
    axes.grid(visible=True, axis="x")
