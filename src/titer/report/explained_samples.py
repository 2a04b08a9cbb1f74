"""Flipped inputs with what each explainer says of them: overlays of images, bars of a table's heaviest features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from titer.report import saliency_pictures as draw
from titer.report.explained_arrays import Pairs, read_pairs
from titer.report.load import RunFolder
from titer.report.study import Study

_MOST_BYTES = 2_500_000
_MOST_TABLES = 2
_FEATURES = 6
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Picture:
    """What one explainer says of one input: images as data URIs with what each is, or a chart."""

    title: str
    images: tuple[tuple[str, str], ...] = ()
    chart: Markup | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One flipped input with all its pictures; the first ones are the inputs themselves where they are images."""

    sample: str
    truth: str
    before: str
    after: str
    pictures: tuple[Picture, ...]

    @property
    def size(self) -> int:
        """Bytes that it adds to the page."""
        return sum(len(one.chart or "") + sum(len(uri) for uri, _ in one.images) for one in self.pictures)


def samples(run: RunFolder, study: Study, keys: Sequence[Key]) -> list[list[Sample]]:
    """Return the flipped inputs of each (model, defence, family): at least one, and more while the page stays small.

    Raises:
        SpecError: a file with arrays is damaged.
    """
    pairs, spent = _all_pairs(run), 0
    found: list[list[Sample]] = []
    for place, key in enumerate(keys):
        kept: list[Sample] = []
        for one in _samples(f"saliency {place}", pairs.get(key, []), study):
            spent += one.size
            if spent <= _MOST_BYTES or not kept:
                kept.append(one)
        found.append(kept)
    return found


def _all_pairs(run: RunFolder) -> dict[Key, list[Pairs]]:
    found: dict[Key, list[Pairs]] = {}
    for _, path in run.studies["explanation"].arrays():
        pairs = read_pairs(path)
        meta = pairs.meta
        found.setdefault((meta["model"], meta["defense"], meta["family"]), []).append(pairs)
    return found


def _samples(name: str, pairs: Sequence[Pairs], study: Study) -> list[Sample]:
    """Return the flipped inputs in the order in which they were drawn, each with every explainer that has it."""
    order = list(dict.fromkeys(sample for one in pairs for sample in one.sample_id))
    if pairs and pairs[0].meta["kind"] != "image":
        order = order[:_MOST_TABLES]
    return [_sample(f"{name} {at}", pairs, one, study) for at, one in enumerate(order)]


def _sample(name: str, pairs: Sequence[Pairs], sample: str, study: Study) -> Sample:
    mine = [(one, one.sample_id.index(sample)) for one in pairs if sample in one.sample_id]
    first, at = mine[0]
    names = [str(one) for one in first.meta["class_names"]]
    truth, before, after = (
        names[value] if 0 <= value < len(names) else f"class {value}"
        for value in (int(first.label[at]), int(first.clean_prediction[at]), int(first.adversarial_prediction[at]))
    )
    if first.meta["kind"] == "image":
        pictures = [_inputs(first, at), *(_overlays(one, place) for one, place in mine)]
    else:
        pictures = [_bars(f"{name} {place}", one, row) for place, (one, row) in enumerate(mine)]
    return Sample(sample, "" if study.graded else truth, before, after, tuple(pictures))


def _inputs(one: Pairs, at: int) -> Picture:
    limits = one.meta.get("value_range")
    images = [draw.grey(image[at], limits) for image in (one.clean, one.adversarial)]
    uris = [draw.heat(image, np.zeros_like(image)) for image in images]
    return Picture("As the model gets it", tuple(zip(uris, ("without attack", "attacked"), strict=True)))


def _overlays(one: Pairs, at: int) -> Picture:
    limits = one.meta.get("value_range")
    shown = (
        (one.clean, one.clean_saliency, "without attack, for the decision then"),
        (one.adversarial, one.adversarial_saliency, "attacked, for the new decision"),
        (one.clean, one.other_saliency, "without attack, for the new decision"),
    )
    uris = [(draw.heat(draw.grey(image[at], limits), draw.strength(heat[at])), words) for image, heat, words in shown]
    return Picture(str(one.meta["title"]), tuple(uris))


def _bars(name: str, one: Pairs, at: int) -> Picture:
    before, after = draw.weights(one.other_saliency[at]), draw.weights(one.adversarial_saliency[at])
    names = one.meta.get("feature_names") or [f"feature {place + 1}" for place in range(len(before))]
    places = draw.heaviest(before, after, _FEATURES)
    rows = [(str(names[place]), float(before[place]), float(after[place])) for place in places]
    title = str(one.meta["title"])
    spoken = f"{title} of {one.sample_id[at]}: share of all weight for the new decision."
    return Picture(title, chart=draw.bars(name, rows, spoken) if rows else None)
