"""`titer assess`: run a plan into a folder with tables and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from titer.cli.progress import console_progress


def assess(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<name of the plan> by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and its cost, run nothing.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Attack a model and its defences as the plan says; write tables, statistics and the report.

    An interrupted assessment goes on where it was: run the same command again.
    """
    from titer.assess.grid import count_steps
    from titer.assess.plan import load_plan
    from titer.assess.run import assess as run

    loaded = load_plan(plan)
    if dry_run:
        from titer.assess.estimate import grid_text

        typer.echo(grid_text(loaded, device=device, workers=workers))
        return
    folder = out or Path("runs") / loaded.name
    with console_progress(count_steps(loaded)) as listener:
        run(loaded, folder, device=device, workers=workers, listener=listener)
    finish(folder)


def finish(folder: Path) -> None:
    """Build the report and print the table and where the report is."""
    from titer.cli.summary import print_summary
    from titer.report.build import build

    report = build(folder)
    print_summary(folder)
    typer.echo(f"report: {report}")
