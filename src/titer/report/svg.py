"""Matplotlib's drawings as inline SVG in the page's own colours and font: one drawing suits light, dark and print.

Every drawing is narrow: on a phone it fills the width with its text still legible, on a desk two stand side by side.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 380
_INCH = 72
# Matplotlib knows no CSS variables: it draws with stand-ins, `_style` puts the variables in their place
_VARIABLES = ("ink", "soft", "paper", "wash", "rule", "grid", *(f"s{number}" for number in range(8)))
_STANDINS = {f"#0102{index:02x}": f"var(--{name})" for index, name in enumerate(_VARIABLES)}
INK, SOFT, PAPER, WASH, RULE, GRID, *SERIES = _STANDINS
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # a name may hold any character
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib: the layout is the same everywhere
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "ytick.major.pad": 6,
    "lines.scale_dashes": False,
    "lines.dashed_pattern": [4, 4],
}


@contextmanager
def canvas(name: str, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Give an empty drawing in the report's style; `name` is unique on the page, the ids in the SVG come from it."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _RC | {"svg.hashsalt": f"titer/{name}"}]):
        yield Figure(figsize=(width / _INCH, height / _INCH))


def plane(drawing: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Return the plotting area of a drawing within the given margins."""
    width, height = drawing.get_size_inches() * _INCH
    return drawing.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )


def inline(drawing: Figure, class_: str = "chart", **attributes: str) -> Markup:
    """Return a drawing as an element of the page; call it inside `canvas`."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # a glyph that Matplotlib lacks is no loss: the reader's browser draws the text
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        drawing.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(_NOT_XML.sub("", buffer.getvalue()))  # noqa: S314 - Matplotlib wrote it a moment ago
    for element in list(root.iter()):
        _plain(element)
    named = {key.replace("_", "-"): _NOT_XML.sub("", value) for key, value in attributes.items()}
    root.attrib = {"class": class_, "viewBox": root.attrib["viewBox"], **named}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - the writer escapes


def _plain(element: ElementTree.Element[Any]) -> None:
    """Drop what a page does not need: namespaces, styles for all, ids of groups, blanks and superfluous digits."""
    for child in [child for child in element if child.tag.endswith("}style")]:
        element.remove(child)
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {
        key.rpartition("}")[2]: _style(value) if key == "style" else _short(value)
        for key, value in element.attrib.items()
        if not (element.tag == "g" and key == "id") and not value.startswith("rotate(-0 ")
    }
    if element.tag not in ("text", "tspan"):
        element.text = None
    element.tail = None


def _style(style: str) -> str:
    parts = [part for part in style.split("; ") if not part.startswith("font-family")]
    return re.sub("#[0-9a-f]{6}", lambda found: _STANDINS.get(found[0], found[0]), "; ".join(parts))


def _short(value: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", " ".join(value.split()))
