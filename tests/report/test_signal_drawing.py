from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from titer.report.drawings import Drawing, drawing
from titer.report.examples import Example

RATE = 360.0


def example(change: float, count: int = 1, samples: int = 250, **told: Any) -> Example:
    time = np.arange(samples) / RATE
    beat = np.exp(-(((time - 0.28) / 0.02) ** 2)) - 0.2
    clean = np.tile(beat, (1, count, 1)).astype(np.float32)
    bump = change * np.exp(-(((time - 0.5) / 0.05) ** 2))
    meta = {"kind": "signal", "drawing": {"rate": RATE, "leads": [f"lead {i}" for i in range(count)], **told}}
    one = np.zeros(1, dtype=np.int64)
    attacked = (clean + bump).astype(np.float32)
    return Example(clean, attacked, one, one, one + 1, ("p1-1",), meta)


def drawn(one: Example) -> Drawing:
    found = drawing(one, 0)
    assert found is not None
    return found


def polylines(found: Drawing) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(str(found.markup))
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]


def test_a_second_is_25_and_a_millivolt_10_millimetres() -> None:
    clean = polylines(drawn(example(0.05)))[0]
    across, heights = clean[-1][0] - clean[0][0], [y for _, y in clean]
    assert across == pytest.approx(250 / RATE * 25, abs=0.02)
    assert max(heights) - min(heights) == pytest.approx(10.0, abs=0.1)


def test_the_difference_is_magnified_by_the_factor_that_is_told() -> None:
    found = drawn(example(0.04))
    change = [y for _, y in polylines(found)[3]]
    assert "difference × 10," in found.note
    assert max(change) - min(change) == pytest.approx(0.04 * 10 * 10, abs=0.1)


def test_thick_lines_stand_every_five_millimetres() -> None:
    paths = re.findall(r'<path d="([^"]*)"', str(drawn(example(0.05)).markup))
    thin, thick = (sorted({int(x) for x in re.findall(r"M(\d+) 0V", one)}) for one in paths)
    assert thin == list(range(thin[-1] + 1))
    assert thick == list(range(0, thin[-1] + 1, 5))


def test_every_lead_has_its_name_and_text_is_escaped() -> None:
    found = drawn(example(0.05, count=2))
    assert "lead 0" in found.markup
    assert "lead 1" in found.markup
    named = drawn(example(0.05, leads=["<b>V1</b>"]))
    assert "<b>" not in named.markup
    assert "&lt;b&gt;V1" in named.markup


def test_a_spike_is_cut_off_and_said_so() -> None:
    spike = drawn(example(5.0))
    assert "spikes are cut off" in spike.note
    height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', str(spike.markup)).group(1))  # type: ignore[union-attr]
    assert height <= 60
    assert "cut off" not in drawn(example(0.05)).note


def test_no_change_and_no_sampling_rate_are_drawn_too() -> None:
    assert "difference × 1000" in drawn(example(0.0)).note
    assert "sampling rate not known" in drawn(example(0.05, rate=None)).note


def test_a_long_signal_is_thinned() -> None:
    found = drawn(example(0.05, samples=5000))
    assert "every 4th sample is drawn" in found.note
    assert len(polylines(found)[0]) == 1250
