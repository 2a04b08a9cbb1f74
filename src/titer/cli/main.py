"""`titer`: gathers the commands, and turns errors into one line and an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from titer import __version__
from titer.cli.assess import assess
from titer.cli.data import data
from titer.cli.guard import guard
from titer.cli.harden import harden
from titer.cli.plugins import plugins
from titer.cli.report import report
from titer.cli.tamper import tamper
from titer.core.errors import Interrupted, SpecError, TiterError

app = typer.Typer(
    name="titer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measures, builds up and guards the immunity of clinical AI models to adversarial attack.",
)
app.command()(assess)
app.command()(harden)
app.command()(report)
app.command()(plugins)
app.command()(tamper)
app.add_typer(data, name="data")
app.add_typer(guard, name="guard")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"titer {__version__}")
        raise typer.Exit


@app.callback()
def titer(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure, build up and guard the immunity of clinical AI models to adversarial attack."""


def run() -> NoReturn:
    """Run the command line: 0 done, 2 the user's mistake, 130 stopped, 1 a bug."""
    try:
        app()
    except SpecError as error:
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), 130)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except TiterError as error:
        _fail(f"internal error: {error}", 1)
    sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"titer: {' '.join(message.split())}\n")
    sys.exit(status)


if __name__ == "__main__":
    run()
