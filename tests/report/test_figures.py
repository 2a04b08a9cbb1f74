"""The drawings: Matplotlib's, but in the page's colours, font and ids, with every name and number in reach."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.report.reading import read_page
from titer.report import figures, svg
from titer.report.figures import Dot, Row, Series
from titer.report.heatmap import heatmap, letter
from titer.report.marks import Figure
from titer.report.numbers import Estimate
from titer.report.staircase import Stairs, staircase
from titer.report.survival import Staircase

WIDE = Estimate(mean=0.4, low=0.2, high=0.6)
TOLD = Estimate(mean=0.9)


def draw_all(name: str) -> list[Figure]:
    series = [Series(name, style, ((0.0, WIDE), (0.25, WIDE), (0.3, TOLD))) for style in range(9)]
    rows = [Row(name, 0, WIDE, TOLD), Row(name, 1, TOLD, Estimate()), Row(name, 2, Estimate(), Estimate())]
    dots = [Dot(name, 3, WIDE, WIDE, True), Dot(name, 4, TOLD, TOLD, False), Dot(name, 5, TOLD, Estimate(), False)]
    line = Staircase("m", "linf", "fmn", "none", (0.0, 0.5), (1.0, 0.25), (0.9, 0.1), (1.0, 0.4), 0.5)
    return [
        figures.curves("a", series, "Budget", "Right (%)", "One."),
        staircase("b", [Stairs(name, 1, line, ((0.1, WIDE),), ((0.1, 0.5),))], "Distance", "Not fooled (%)", "Two."),
        figures.dumbbells("c", rows, "Right (%)", "Three.", "Title"),
        figures.scatter("d", dots, "Four."),
        figures.headline("e", [(name, 2, WIDE, True), (name, 0, TOLD, False), (name, 1, Estimate(), False)], "Five."),
        heatmap("f", [name, name], [name], [[WIDE], [Estimate()]], [0, -1], "Six."),
    ]


def test_a_drawing_takes_colours_and_font_from_the_page(master: Path) -> None:
    page = read_page(master)
    drawn = [attributes for tag, attributes in page.tags if tag in ("path", "use", "text", "rect", "tspan")]
    assert len(drawn) > 100
    colours = set(re.findall(r"(?:fill|stroke): ([^;]+)", "; ".join(str(one.get("style")) for one in drawn)))
    assert {"var(--ink)", "var(--soft)", "var(--s0)"} <= colours
    assert {colour for colour in colours if not colour.startswith("var(--")} <= {"none"}
    assert not any("font-family" in str(one.get("style")) for one in drawn)


def test_references_lead_to_the_same_drawing(master: Path) -> None:
    for source in re.findall(r"<svg.*?</svg>", (master / "report.html").read_text(), re.DOTALL):
        root = ElementTree.fromstring(source)
        assert set(root.attrib) <= {"class", "viewBox", "role", "aria-label", "aria-hidden"}
        used = re.findall(r'href="#(\w+)"|url\(#(\w+)\)', source)
        assert {first or second for first, second in used} <= {one.get("id") for one in root.iter()}


@pytest.mark.parametrize("name", ['$\\frac{1}{2}$ <b> & "q" #010200', "防御 Ω\x01", "long name " * 12, "$"])
def test_any_name_is_drawn_as_it_is(name: str) -> None:
    *whole, matrix = draw_all(name)
    assert name.replace("\x01", "") in ElementTree.fromstring(matrix.drawing).attrib["aria-label"]  # cut in the picture
    for figure in whole:
        root = ElementTree.fromstring(figure.drawing)
        spoken, words = root.attrib["aria-label"], ["".join(one.itertext()) for one in root.iter("text")]
        legend = [text for _, text in figure.legend]
        assert name.replace("\x01", "") in spoken.replace("\x01", "")
        assert legend or " ".join(name.replace("\x01", "").split()) in " ".join(words)


def test_every_series_has_its_own_colour_marker_and_dashes() -> None:
    curve = draw_all("x")[0]
    samples = [str(sample) for sample, _ in curve.legend]
    assert len({re.sub(r"[mp][0-9a-f]{10}", "", sample) for sample in samples[:8]}) == 8
    for style, sample in enumerate(samples[:8]):
        assert f"var(--s{style})" in sample


def test_a_figure_is_the_same_on_every_call_and_leaves_no_trace() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert draw_all("x") == draw_all("x")
    assert dict(mpl.rcParams) == before


def test_error_bars_are_centred_on_their_markers() -> None:
    with svg.canvas("t", 100) as drawing:
        axes = svg.plane(drawing, left=0, right=0, top=0, bottom=0)
        figures._dumbbell(axes, Row("x", 0, WIDE, WIDE), 50)
        bars = [float(segment[0][1]) for one in axes.collections for segment in one.get_segments()]
        marks = [float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert bars == marks == [45, 55]


def test_targets_go_by_letters_that_never_repeat() -> None:
    assert [letter(index) for index in (0, 1, 25, 26, 51, 52)] == ["A", "B", "Z", "AA", "AZ", "BA"]
    assert len({letter(index) for index in range(100)}) == 100


def test_values_that_are_no_shares_have_an_axis_of_their_own() -> None:
    rows = [Row("x", 0, Estimate(mean=6.5), Estimate(mean=23.0, low=20.0, high=31.0))]
    words = "".join(ElementTree.fromstring(figures.dumbbells("g", rows, "Months", "", shares=False).drawing).itertext())
    assert "30" in words
    assert "100" not in words
