"""Lay the report out: Jinja2 templates of this package, autoescape always on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from titer.report import format as form
from titer.report import wording


def _source(name: str) -> str:
    return (files("titer.report") / "templates" / name).read_text(encoding="utf-8")


def render(variables: Mapping[str, Any]) -> str:
    """Return `report.html` for the variables of `sections.context`."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=form.percent,
        interval=form.interval,
        sentence=wording.sentence,
        estimate=wording.estimate,
        points=form.points,
        ratio=form.ratio,
        count=form.count,
    )
    # the style sheet is this package's own file: the only text besides the drawings that is not escaped
    style = Markup(_source("style.css"))  # noqa: S704
    return environment.get_template("report.html.j2").render(style=style, **variables)
