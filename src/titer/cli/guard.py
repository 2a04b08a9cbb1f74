"""`titer guard`: the gateway between the PACS and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from titer.core.errors import SpecError
from titer.core.extras import need

guard = typer.Typer(no_args_is_help=True, help="Run the gateway that checks, watches and holds what is suspicious.")
Folder = Annotated[Path, typer.Argument(help="The guard's folder, as `titer guard init` makes it.")]


@guard.callback()
def _needs() -> None:
    need("sqlalchemy", "guard")


@guard.command()
def run(folder: Folder) -> None:
    """Run a guard until Ctrl-C."""
    from titer.guard.home import Home
    from titer.guard.service import run as serve

    serve(Home(folder), lambda service: typer.echo("\n".join(service.addresses())))


@guard.command()
def verify(folder: Folder) -> None:
    """Verify the audit chain of a guard, running or not: exit status 1 where it was changed."""
    from titer.guard.audit.verify import verified
    from titer.guard.home import Home

    rows, problems = verified(Home(folder))
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"the audit chain is whole: {rows} rows")


def absent(folder: Path) -> Path:
    """Return a folder that `init` may fill: SpecError where something stands in it."""
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"DIR = {str(folder)!r} is not empty: name a new folder")
    return folder
