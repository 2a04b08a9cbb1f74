"""`titer report`: build a run folder's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run_dir: Annotated[Path, typer.Argument(help="A folder that titer assess wrote.")]) -> None:
    """Build report.html and report.json from a run folder, with no model and no data at hand."""
    from titer.report.build import build

    typer.echo(f"report: {build(run_dir)}")
