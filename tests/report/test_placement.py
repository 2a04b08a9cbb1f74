"""Words of a drawing lie over nothing that is drawn: measured on the finished pictures, in the picture's own units."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from tests.report import test_expression, test_signal_drawing
from titer.report.drawings import drawing
from titer.report.placement import spots

COLOURS = re.compile("b2182b|2166ac")
Box = tuple[float, float, float, float]


def width_of(words: str, size: float) -> float:
    """How wide DejaVu Sans sets them: one of the widest fonts of a browser."""
    box = TextPath((0, 0), words, size=size, prop=FontProperties(family="DejaVu Sans")).get_extents()
    return float(box.x1)


def meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def holds(box: Box, point: tuple[float, float]) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def volcano(seed: int, changed: int, genes: int = 120) -> tuple[dict[str, Box], list[tuple[float, float]]]:
    """Draw one, and return the boxes of its names and the middles of its points, both in the picture's units."""
    rng = np.random.default_rng(seed)
    plain = test_expression.example(0)
    clean = np.full((1, genes), 6.0, dtype=np.float32)
    moved = clean.copy()
    moved[0, :changed] += rng.choice([-1, 1], changed) * rng.gamma(2, 1.2, changed)
    known = plain.meta["drawing"] | {
        "classes": [],
        "class_means": [],
        "minus_log10_p": rng.gamma(1.2, 6, genes).tolist(),
    }
    meta = plain.meta | {"drawing": known, "feature_names": [f"GENE{i}_at" for i in range(genes)]}
    meta["feature_scale"] = [2.0] * genes
    found = drawing(replace(plain, clean=clean, adversarial=moved, meta=meta), 0)
    assert found is not None
    root = ElementTree.fromstring(str(found.markup)[str(found.markup).rindex("<svg") :])
    points = [
        (float(one.attrib["x"]), float(one.attrib["y"]))
        for one in root.iter("use")
        if COLOURS.search(one.attrib["style"])
    ]
    return dict(_names(root)), points


def _names(root: ElementTree.Element) -> list[tuple[str, Box]]:
    named = []
    for text in root.iter("text"):
        words = "".join(text.itertext())
        if words.startswith("GENE"):
            size = float(re.search(r"([\d.]+)px", text.attrib["style"])[1])  # type: ignore[index]
            x, y = float(text.attrib["x"]), float(text.attrib["y"])
            named.append((words, (x, y - 0.75 * size, x + width_of(words, size), y + 0.2 * size)))
    return named


@pytest.mark.parametrize(("seed", "changed"), [(0, 3), (1, 20), (2, 120), (3, 120)])
def test_names_of_genes_cover_no_point_and_no_other_name(seed: int, changed: int) -> None:
    names, points = volcano(seed, changed)
    assert len(points) >= changed
    assert len(names) == min(changed, 5)
    assert [(name, point) for name, box in names.items() for point in points if holds(box, point)] == []
    assert [pair for pair in itertools.combinations(names, 2) if meet(names[pair[0]], names[pair[1]])] == []


def test_names_keep_off_each_other_and_off_points_where_points_crowd() -> None:
    points = np.random.default_rng(0).normal([150, 80], [30, 25], (300, 2))
    found = spots(points, range(300), np.full((300, 2), [60.0, 11.0]), (300.0, 160.0), 5)
    assert len(found) == 5
    for spot in found:
        assert min(spot.box) >= 0
        assert spot.box[2] <= 300
        assert spot.box[3] <= 160
        assert not any(holds(spot.box, tuple(point)) for point in points)
    assert not any(meet(one.box, other.box) for one, other in itertools.combinations(found, 2))


def test_the_name_that_matters_most_stands_at_its_point_and_one_without_room_is_left_out() -> None:
    lone = spots(np.array([[50.0, 50.0]]), [0], np.array([[40.0, 10.0]]), (100.0, 100.0), 5)
    assert [(spot.point, spot.end) for spot in lone] == [(0, None)]
    assert spots(np.array([[50.0, 50.0]]), [0], np.array([[140.0, 10.0]]), (100.0, 100.0), 5) == []


@pytest.mark.parametrize(
    ("leads", "samples", "change"),
    [
        (["MLII"], 250, 0.05),
        (["MLII", "V5"], 250, 5.0),
        ([f"V{i}" for i in range(12)], 3000, 0.02),
        (["aVR, augmented after Goldberger"], 250, 0.0),
    ],
)
def test_words_of_an_ecg_lie_left_of_every_trace_and_over_no_other_word(
    leads: list[str], samples: int, change: float
) -> None:
    found = test_signal_drawing.drawn(test_signal_drawing.example(change, len(leads), samples, leads=leads))
    root = ElementTree.fromstring(str(found.markup))
    boxes = []
    for text in root.iter("text"):
        words, size = text[0].tail or "", float(text.attrib["font-size"])
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        boxes.append((x, y - 0.75 * size, x + width_of(words, size), y + 0.2 * size))
    assert len(boxes) == 2 * len(leads)
    begin = min(x for line in test_signal_drawing.polylines(found) for x, _ in line)
    assert [box for box in boxes if not 0 < box[0] < box[2] < begin] == []
    assert [pair for pair in itertools.combinations(boxes, 2) if meet(*pair)] == []
