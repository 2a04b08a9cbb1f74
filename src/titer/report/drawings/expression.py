"""Profiles of genes or CpG sites: a heat map of what changed most beside the class means, and a volcano-like plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from titer.report import svg
from titer.report.drawings import Drawing
from titer.report.examples import Example
from titer.report.format import count, general
from titer.report.placement import spots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
_GENES = 16
_POINTS = 400
_NAMED = 5
_NAME_SIZE = 9
_TRIED = 30
"""Points that may have a name: where one finds no room, a point that matters less has it."""

_ENDLESS = 300.0
_ROW = 19
_HEAD = 26
_LEFT = 116
_STRONG = 3.0
"""Standard deviations from the mean at which a colour is full."""
_BLUE, _RED = "#2166ac", "#b2182b"  # ColorBrewer's RdBu: told apart by colour-blind readers
_LONGEST = 15


@dataclass(frozen=True, slots=True)
class _Profile:
    """One pair as drawings read it; all [F] but the class means [K, F]. `apart` is empty where nothing is known."""

    names: tuple[str, ...]
    clean: Floats
    adversarial: Floats
    scale: Floats
    centre: Floats
    classes: tuple[str, ...]
    means: Floats
    apart: Floats
    what: str
    unit: str

    @property
    def change(self) -> Floats:
        """The change in standard deviations; 0 where a feature never varies."""
        return np.where(self.scale > 0, (self.adversarial - self.clean) / np.where(self.scale > 0, self.scale, 1), 0)

    @property
    def changed(self) -> npt.NDArray[np.int64]:
        """Places of the changed features, the largest change first; of equal ones, what tells the classes apart."""
        apart = self.apart if self.apart.size else np.zeros_like(self.change)
        order: npt.NDArray[np.int64] = np.lexsort((-apart, -np.abs(self.change).round(2)))
        changed: npt.NDArray[np.int64] = order[self.adversarial[order] != self.clean[order]]
        return changed


def draw(example: Example, index: int) -> Drawing:
    """Return the heat map and the volcano-like plot of one pair."""
    profile = _profile(example, index)
    if not len(profile.changed):
        return Drawing(markup=Markup(), note=f"No {profile.what} was changed.")
    key = f"{example.meta['model']} {example.meta['defense']} {example.meta['attack']} {example.sample_id[index]}"
    parts = [_heat_map(profile, key)]
    if profile.apart.size:
        parts.append(_volcano(profile, key))
    return Drawing(markup=Markup("").join(parts), note=_note(profile))


def _profile(example: Example, index: int) -> _Profile:
    meta, known = example.meta, example.meta.get("drawing") or {}
    clean = example.clean[index].reshape(-1).astype(np.float64)
    size = clean.size
    means = np.asarray(known.get("class_means") or [], dtype=np.float64).reshape(-1, size)
    scale = np.asarray(meta.get("feature_scale") or np.ones(size), dtype=np.float64)
    return _Profile(
        names=tuple(map(str, meta.get("feature_names") or [f"feature {i + 1}" for i in range(size)])),
        clean=clean,
        adversarial=example.adversarial[index].reshape(-1).astype(np.float64),
        scale=scale,
        centre=means.mean(0) if len(means) else clean,
        classes=tuple(map(str, known.get("classes") or ()))[: len(means)],
        means=means,
        apart=np.nan_to_num(np.asarray(known.get("minus_log10_p") or [], dtype=np.float64), posinf=_ENDLESS),
        what=str(known.get("what") or "gene"),
        unit=str(known.get("value") or ""),
    )


def _note(profile: _Profile) -> str:
    many = len(profile.changed)
    ups = int((profile.change > 0).sum())
    unit = f", in {profile.unit}" if profile.unit else ""
    shown = f"the {_GENES} most changed of {count(many)}" if many > _GENES else f"all {many}"
    text = (
        f"Heat map: {shown} {profile.what}s that the attack changed ({count(ups)} up, {count(many - ups)} down), the "
        f"sample before and after it, and the means of the classes{unit}; red is above, blue below the mean of the "
        f"class means, full colour at {_STRONG:g} SD."
    )
    if profile.apart.size:
        text += (
            f" Volcano plot: each changed {profile.what}, its change against how far it tells the classes apart in the "
            "cohort (one-way ANOVA)."
        )
    return text


def _heat_map(profile: _Profile, key: str) -> Markup:
    chosen = profile.changed[:_GENES]
    columns = [("before", profile.clean), ("attacked", profile.adversarial)]
    columns += list(zip(profile.classes, profile.means, strict=True))
    with svg.canvas(f"heat {key}", _HEAD + _ROW * len(chosen) + 4) as drawing:
        axes = svg.plane(drawing, left=_LEFT, right=2, top=_HEAD, bottom=4)
        axes.set(xlim=(0, len(columns)), ylim=(len(chosen), 0))
        axes.set_axis_off()
        for place, (title, values) in enumerate(columns):
            axes.annotate(
                _short(title, 8), (place + 0.5, 0), (0, 6), textcoords="offset points", ha="center", fontsize=10
            )
            for row, gene in enumerate(chosen):
                _cell(axes, row, place, float(values[gene]), _deviation(profile, values, int(gene)))
        axes.axvline(2, color=svg.INK, linewidth=1)
        for row, gene in enumerate(chosen):
            name = _short(profile.names[gene], _LONGEST)
            axes.annotate(name, (0, row + 0.5), (2 - _LEFT, 0), textcoords="offset points", va="center", fontsize=10)
        return svg.inline(drawing, role="img", aria_label=_spoken(profile, chosen))


def _deviation(profile: _Profile, values: Floats, gene: int) -> float:
    return float((values[gene] - profile.centre[gene]) / (profile.scale[gene] or 1.0))


def _cell(axes: Axes, row: int, column: int, value: float, deviation: float) -> None:
    from matplotlib.patches import Rectangle

    depth = min(abs(deviation) / _STRONG, 1.0) * 0.75  # the numbers stay legible on it, on either background
    colour = _RED if deviation > 0 else _BLUE
    axes.add_patch(Rectangle((column + 0.02, row + 0.04), 0.96, 0.92, color=colour, alpha=depth, linewidth=0))
    axes.text(column + 0.5, row + 0.5, general(value, 3), ha="center", va="center_baseline", fontsize=8)


def _volcano(profile: _Profile, key: str) -> Markup:
    chosen = profile.changed[:_POINTS]
    change, apart = profile.change[chosen], profile.apart[chosen]
    with svg.canvas(f"volcano {key}", 250) as drawing:
        axes = svg.plane(drawing, left=52, right=12, top=12, bottom=44)
        axes.axvline(0, color=svg.RULE, linewidth=1)
        for up, colour in ((True, _RED), (False, _BLUE)):
            side = (change > 0) == up
            axes.plot(change[side], apart[side], linestyle="none", marker=".", markersize=6, color=colour, alpha=0.7)
        far = float(np.abs(change).max()) * 1.25
        axes.set(xlim=(-far, far), ylim=(0, max(float(apart.max()), 1.0) * 1.15))
        axes.set(xlabel="Change (SD)", ylabel="\N{MINUS SIGN}log10 p between classes")
        axes.grid(axis="y")
        order = np.argsort(-np.abs(change) * apart, kind="stable")[:_TRIED]
        _named(axes, np.stack([change, apart], 1), order, [_short(profile.names[chosen[i]], _LONGEST) for i in order])
        words = f"Change of {len(chosen)} {profile.what}s in standard deviations against minus log10 of the ANOVA's p."
        return svg.inline(drawing, role="img", aria_label=words)


def _named(axes: Axes, points: Floats, order: npt.NDArray[np.int64], names: list[str]) -> None:
    """Write the names of points [N, 2], those first that matter most, where they cover nothing."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    scale, corner = 72 / figure.dpi, axes.transAxes.transform((0.0, 0.0))
    where = (axes.transData.transform(points) - corner) * scale
    width, height = (axes.transAxes.transform((1.0, 1.0)) - corner) * scale
    told = dict(zip(order.tolist(), names, strict=True))
    for spot in spots(where, order.tolist(), _sizes(axes, names) * scale, (float(width), float(height)), _NAMED):
        start = tuple(np.array(spot.box[:2]) - where[spot.point])
        at = tuple(points[spot.point])
        axes.annotate(told[spot.point], at, start, textcoords="offset points", va="bottom", fontsize=_NAME_SIZE)
        if spot.end is not None:
            end = axes.transData.inverted().transform(np.array(spot.end) / scale + corner)
            axes.plot(*np.stack([points[spot.point], end]).T, color=svg.SOFT, linewidth=0.6)


def _sizes(axes: Axes, names: list[str]) -> Floats:
    """Return float[len(names), 2], how wide and high each name is, in pixels of the drawing."""
    texts = [axes.text(0, 0, name, va="bottom", fontsize=_NAME_SIZE) for name in names]
    boxes = [text.get_window_extent() for text in texts]
    for text in texts:
        text.remove()
    return np.array([[box.width, box.height] for box in boxes])


def _spoken(profile: _Profile, chosen: npt.NDArray[np.int64]) -> str:
    parts = (
        f"{profile.names[g]} {general(float(profile.clean[g]), 3)} to {general(float(profile.adversarial[g]), 3)}"
        for g in chosen
    )
    return f"Most changed {profile.what}s: {'; '.join(parts)}."


def _short(text: str, most: int) -> str:
    """Return the end of a long name, where genes and probes differ; no torn prefix: "rna_" may be mRNA or miRNA."""
    if len(text) <= most:
        return text
    end = text[1 - most :]
    torn, _, whole = end.partition("_")
    return "…" + (whole if len(whole) > len(torn) else end)
