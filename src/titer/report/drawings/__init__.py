"""How a pair of inputs is drawn for its specialist: one file for each kind of data that is neither image nor table.

`<kind>.py` has `draw(example, index) -> Drawing`. A kind without a file is shown as a table of its changed values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from markupsafe import Markup

from titer.report.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A pair as markup that is safe to show (text of the data escaped), and what has to be said of it."""

    markup: Markup
    note: str = ""


def drawing(example: Example, index: int) -> Drawing | None:
    """Return the drawing of one pair of an example, or None where its kind has none of its own."""
    name = f"{__name__}.{example.meta['kind']}"
    if find_spec(name) is None:
        return None
    draw = cast("Callable[[Example, int], Drawing]", import_module(name).draw)
    return draw(example, index)
