"""`titer guard`: the gateway between the PACS and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


@guard.command()
def check(folder: Folder) -> None:
    """Check settings, keys, certificates, disk, database and peers: exit status 1 where something is wrong."""
    from titer.guard.home import Home
    from titer.guard.operate.check import problems

    found = list(problems(Home(folder)))
    for problem in found:
        typer.echo(problem)
    if found:
        raise typer.Exit(1)
    typer.echo("nothing is wrong")


@guard.command()
def backup(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="The file to write, such as guard.tar.gz.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Put the keys in as well; the file is then as secret as they are.")
    ] = False,
) -> None:
    """Back up a guard, running or not: settings, models, checkpoints, and the database where it is SQLite."""
    from titer.guard.home import Home
    from titer.guard.operate.backup import backup as write

    typer.echo(f"{out}: {', '.join(write(Home(folder), out, with_keys=with_keys))}")


@guard.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `titer guard backup` wrote.")], folder: Folder
) -> None:
    """Unpack a backup into a new folder; then verify it."""
    from titer.guard.operate.backup import restore as unpack

    typer.echo(f"{unpack(file, folder).root}: restored; now titer guard verify {folder}")
