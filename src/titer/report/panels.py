"""Example panels: what an attack changed on a few patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from titer.report.drawings import Drawing, drawing
from titer.report.examples import Example
from titer.report.format import NBSP, count, general
from titer.report.goals import goal_class
from titer.report.load import RunFolder
from titer.report.pictures import Floats, changed_slices, difference, picture, to_planes
from titer.report.study import Study
from titer.report.wording import unit_words

_MOST_PANELS = 12
_MOST_BYTES = 3_000_000
_MOST_FEATURES = 8
_SHOWN_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class Change:
    """One changed feature, in its own unit; `size` is the change in standard deviations, or relative to its value."""

    name: str
    unit: str
    before: str
    after: str
    size: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One clean and adversarial pair.

    Attributes:
        heading: model, defence, attack and threat.
        sample: id of the test row.
        truth: the true class, or whether the goal's one finding is there; empty where the output is neither.
        before: name of the class predicted without attack.
        after: name of the class predicted under attack.
        fooled: whether a right prediction became wrong.
        distance: size of the change, with its unit.
        clean: data URI of the clean image; empty for a table.
        adversarial: data URI of the attacked image.
        difference: data URI of the magnified difference.
        magnified: the factor and the scale of the difference, in words.
        where: which slice of a volume is drawn, and how many change; the window where not all values are drawn.
        changes: the changed features, largest change first; empty for an image.
        size_name: what `Change.size` is.
        more: number of changed features that are not listed.
        drawn: the pair as its specialist reads it, where its kind has a drawing of its own.
    """

    heading: str
    sample: str
    truth: str
    before: str
    after: str
    fooled: bool
    distance: str
    clean: str = ""
    adversarial: str = ""
    difference: str = ""
    magnified: str = ""
    where: str = ""
    changes: tuple[Change, ...] = ()
    size_name: str = ""
    more: int = 0
    drawn: Drawing | None = None


def panels(run: RunFolder, study: Study) -> tuple[Panel, ...]:
    """Return panels of the largest budgets: the undefended model first, pairs that were fooled before others."""
    chosen: list[Panel] = []
    size = 0
    for index, example in _worth_showing(run, study):
        panel = _panel(run, study, example, index)
        size += (
            len(panel.clean)
            + len(panel.adversarial)
            + len(panel.difference)
            + len(panel.drawn.markup if panel.drawn else "")
        )
        if len(chosen) == _MOST_PANELS or (chosen and size > _MOST_BYTES):
            break
        chosen.append(panel)
    return tuple(chosen)


def _worth_showing(run: RunFolder, study: Study) -> list[tuple[int, Example]]:
    """Return at most two pairs of each model, defence and threat family, one attack each."""
    largest = {study.largest(family).label for family in study.families}
    order = {label: place for place, label in enumerate(study.defenses)}
    ranked: list[tuple[tuple[Any, ...], str, int, Example]] = []
    for example in run.examples:
        meta = example.meta
        if meta["threat"] not in largest or meta["defense"] != meta["source"]:
            continue
        right = example.clean_prediction == example.label
        fooled = right & (example.adversarial_prediction != example.label)
        place = order.get(meta["defense"], len(order))
        group = f"{meta['model']}\n{meta['defense']}\n{meta['threat_family']}"
        for index in range(len(fooled)):
            grade = 0 if fooled[index] else 1 if right[index] else 2
            ranked.append(((place, group, grade, meta["attack"], index), group, index, example))
    ranked.sort(key=lambda one: one[0])
    taken: dict[str, int] = {}
    shown: list[tuple[int, Example]] = []
    for _, group, index, example in ranked:
        if taken.setdefault(group, 0) < 2:
            taken[group] += 1
            shown.append((index, example))
    return shown


def _panel(run: RunFolder, study: Study, example: Example, index: int) -> Panel:
    meta = example.meta
    label, before = int(example.label[index]), int(example.clean_prediction[index])
    after = int(example.adversarial_prediction[index])
    names, finding = [str(name) for name in meta["class_names"]], _finding(study, str(meta["threat"]))
    if finding:
        names = [f"{finding} absent", f"{finding} present"]
    elif study.graded:
        names, label, before, after = ["right", "wrong"], 0, int(before != label), int(after != label)
    who = f"{meta['model']}, " if len(study.models) > 1 else ""
    drawn = drawing(example, index)
    look = _image if meta["kind"] == "image" else _table
    content = {"drawn": drawn} if drawn else look(example, index)
    defense, attack = study.defense_title(meta["defense"]), study.attack_title(meta["attack"])
    return Panel(
        heading=f"{who}{defense} · {attack} · {meta['threat']}",
        sample=example.sample_id[index],
        truth="" if study.graded and not finding else _name(names, label),
        before=_name(names, before),
        after=_name(names, after),
        fooled=before == label != after,
        distance=_distance(run, example, index),
        **content,
    )


def _finding(study: Study, label: str) -> str:
    """Return the one finding of several that the goal of a threat is about; empty where there is none."""
    threat = study.threat(label)
    aim = goal_class(threat.goal, study) if threat is not None and study.output == "labels" else None
    return "" if aim is None else study.classes[aim]


def _name(names: list[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _distance(run: RunFolder, example: Example, index: int) -> str:
    """Return the size of the change off the outcomes: only they know the scale of the threat's unit."""
    meta, rows = example.meta, run.outcomes
    keep = rows["sample_id"].astype(str) == example.sample_id[index]
    for column in ("model", "defense", "source", "attack", "threat"):
        keep &= rows[column] == meta[column]
    found = rows[keep].sort_values("trial")
    column = f"distance_{meta['norm']}"
    if found.empty or column not in found.columns:
        return "–"
    # A share is a budget's unit: what was changed is counted.
    unit = unit_words(str(meta["unit"]).removeprefix("% of "))
    return f"{general(float(found[column].iloc[0]), 3)} {unit}, {meta['norm']}"


def _image(example: Example, index: int) -> dict[str, Any]:
    """Return the pictures of one pair: of a volume, those of the slice that changes most."""
    meta = example.meta
    first = bool(meta.get("channels_first", True))
    before, after = example.clean[index], example.adversarial[index]
    slices = changed_slices(after - before, channels_first=first)
    place = slices[0] if slices else None
    clean, adversarial = (to_planes(one, channels_first=first, place=place) for one in (before, after))
    low, high, shown = _window(clean, meta.get("value_range"))
    change = adversarial - clean
    return {
        "clean": picture(clean, low, high),
        "adversarial": picture(adversarial, low, high),
        "difference": difference(change, float(np.abs(change).max())),
        "magnified": _magnified(change, low, high, meta),
        "where": " · ".join(filter(None, (_slice_words(slices, before.shape[1 if first else 0]), shown))),
    }


def _window(clean: Floats, value_range: Sequence[float] | None) -> tuple[float, float, str]:
    """Return which values are drawn black and white, and what to say of it.

    An 8-bit image is drawn as it is. What a scanner stores uses a small part of its range: drawn whole it would be
    black, so its own values, but for the outermost in 200, are spread from black to white.
    """
    if list(value_range or []) == [0, 255]:
        return 0.0, 255.0, ""
    low, high = (float(end) for end in np.percentile(clean, _SHOWN_PERCENTILES))
    if high <= low:
        return (float(value_range[0]), float(value_range[1]), "") if value_range else (low, low + 1.0, "")
    return low, high, f"window {general(low, 3)} (black) to {general(high, 3)} (white)"


def _slice_words(slices: tuple[int, ...], depth: int) -> str:
    """Return which slice of a volume is drawn; empty for an image, and where nothing changes."""
    if not slices:
        return ""
    number = f"Slice {slices[0] + 1} of {depth}"
    if len(slices) == 1:
        return f"{number}, the only one that changes"
    return f"{number}, which changes most; {len(slices)} slices change"


def _magnified(change: Floats, low: float, high: float, meta: dict[str, Any]) -> str:
    """Return the factor and the scale of the drawn difference [H, W, C] in words."""
    limit = float(np.abs(change).max())
    if not limit:
        return "no change"
    unit = "grey levels" if list(meta.get("value_range") or []) == [0, 255] else "input units"
    factor = (high - low) / 2 / limit
    scale = f"blue {general(-limit, 3)}, white 0, red +{general(limit, 3)} {unit}"
    channels = "; of the colour channels the one that changes most" if change.shape[2] > 1 else ""
    return f"× {general(factor, 2) if factor < 100 else count(factor)}: {scale}{channels}"


def _table(example: Example, index: int) -> dict[str, Any]:
    """Return the features that changed most: in standard deviations where the run says what one is."""
    meta = example.meta
    clean = example.clean[index].reshape(-1).astype(np.float64)
    change = example.adversarial[index].reshape(-1).astype(np.float64) - clean
    scale = _scale(meta.get("feature_scale"), clean.size)
    known = scale is not None
    size = change / (scale if scale is not None else np.where(clean == 0, 1.0, np.abs(clean)))
    names = meta.get("feature_names") or [f"feature {place + 1}" for place in range(clean.size)]
    units = meta.get("feature_units") or [""] * clean.size
    order = [int(place) for place in np.argsort(-np.abs(size), kind="stable") if change[place] != 0]
    changes = tuple(
        Change(
            name=str(names[place]),
            unit=str(units[place] or ""),
            before=general(clean[place]),
            after=general(clean[place] + change[place]),
            size=f"{size[place]:+.2f}".replace("-", "−")
            if known
            else f"{100 * size[place]:+.1f}{NBSP}%".replace("-", "−"),
        )
        for place in order[:_MOST_FEATURES]
    )
    return {
        "changes": changes,
        "size_name": "change (SD)" if known else "change (of its value)",
        "more": max(0, len(order) - _MOST_FEATURES),
    }


def _scale(scale: Any, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    if not scale or len(scale) != size:
        return None
    values = np.asarray(scale, dtype=np.float64)
    return np.where(values > 0, values, 1.0)
