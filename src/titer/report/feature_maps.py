"""The map of features: where clean and attacked rows lie, by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from titer.report import svg
from titer.report.marks import Figure, marker

_HELD = 0.3
_SMALL = 5.0


def feature_map(name: str, points: pd.DataFrame, classes: Sequence[str], caption: str, title: str = "") -> Figure:
    """Draw the points x, y of a map: marks by `label`, hollow without attack and solid under it.

    Attacked points whose decision held are pale. `classes` names the labels; `name` is the figure's own.
    """
    shown = [label for label in range(len(classes)) if bool((points["label"] == label).any())]
    with svg.canvas(name, 340) as drawing:
        axes = svg.plane(drawing, left=4, right=4, top=4, bottom=4)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.margins(0.04)
        for label in shown:
            mine = points[points["label"] == label]
            hit = mine[mine["attacked"]]
            for part, kind in (
                (mine[~mine["attacked"]], _mark(label, hollow=True)),
                (hit[~hit["flipped"]], _mark(label, hollow=False) | {"alpha": _HELD}),
                (hit[hit["flipped"]], _mark(label, hollow=False)),
            ):
                axes.plot(part["x"], part["y"], linestyle="none", **kind)
        told = [f"{classes[label]}: {_told(points[points['label'] == label])}" for label in shown]
        picture = svg.inline(drawing, role="img", aria_label=f"{caption} {'; '.join(told)}.")
    entries = [
        (_sample(f"{name}/legend {label} {hollow}", label, hollow=hollow), f"{classes[label]}, {words}")
        for label in shown
        for hollow, words in ((True, "clean"), (False, "attacked"))
    ]
    return Figure(picture, caption, tuple(entries), title)


def _mark(label: int, *, hollow: bool) -> dict[str, Any]:
    """Return the marker of a class; the first style is the undefended model's elsewhere, so classes begin after it."""
    return marker(label + 1, hollow=hollow) | {
        "markersize": _SMALL + (0 if hollow else 1),
        "markeredgewidth": 1.2 if hollow else 0.6,
    }


def _sample(name: str, label: int, *, hollow: bool) -> Markup:
    from matplotlib.lines import Line2D

    with svg.canvas(name, 16, 34) as drawing:
        drawing.add_artist(Line2D([0.5], [0.5], linestyle="none", **_mark(label, hollow=hollow) | {"markersize": 7}))
        return svg.inline(drawing, "swatch", aria_hidden="true")


def _told(points: pd.DataFrame) -> str:
    hit = points[points["attacked"]]
    return f"{len(points) - len(hit)} clean, {len(hit)} attacked, {int(hit['flipped'].sum())} flipped"
