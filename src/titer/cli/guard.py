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
def init(
    folder: Annotated[Path, typer.Argument(help="An empty or a new folder.")],
) -> None:
    """Make a guard: commented settings, keys, an administrator's account, and a demo model trained on the fly."""
    from titer.guard.judge.demo import demo_bundle
    from titer.guard.operate.people import add
    from titer.guard.operate.setup import ADMIN
    from titer.guard.operate.setup import init as make

    password = make(folder, account=add, model=demo_bundle)
    typer.echo(f"settings: {folder / 'guard.toml'}\naccount: {ADMIN}, password in {password}")
    typer.echo(f"now: titer guard run {folder}")


@guard.command()
def account(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The account's name.")],
    role: Annotated[str, typer.Option("--role", help="admin, radiologist, reviewer or auditor.")],
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="A file with the password; without it you are asked.")
    ] = None,
) -> None:
    """Make an account with a password."""
    from titer.guard.context import opened
    from titer.guard.home import Home
    from titer.guard.keys import read
    from titer.guard.operate.people import add
    from titer.guard.settings import load

    home = Home(folder)
    settings = load(home)
    if password_file is None:
        password = typer.prompt("password", hide_input=True, confirmation_prompt=True)
    else:
        password = read(password_file).decode("utf-8", "replace").strip()
    context = opened(home, settings)
    try:
        add(context, name, role, password)
    finally:
        context.close()
    typer.echo(f"{name}: {role}")


@guard.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="An empty or a new folder.")] = Path("guard-demo"),
    once: Annotated[bool, typer.Option("--once", help="End as soon as both studies are judged.")] = False,
) -> None:
    """Show a guard at work between a modality (DCMTK) and an archive (Orthanc), with a clean and a tampered study."""
    import signal
    import threading

    from titer.guard.judge.demo import demo_bundle, demo_images
    from titer.guard.operate.demo import Makers
    from titer.guard.operate.demo import demo as show
    from titer.guard.operate.people import add
    from titer.guard.service import Service, components

    ended = threading.Event()
    if once:
        ended.set()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    makers = Makers(
        account=add,
        model=demo_bundle,
        images=lambda count: demo_images(count).numpy(),
        serve=lambda context: Service(context, components()),
    )
    show(folder, makers, typer.echo, ended)


@guard.command()
def casestudy(
    folder: Annotated[Path, typer.Argument(help="An empty or a new folder.")],
    images: Annotated[int, typer.Option("--images", help="Images sent in each condition.")] = 80,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes of training.")] = 20,
    side: Annotated[int, typer.Option("--side", help="Height and width of the images in pixels.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of split, training and attacks.")] = 2026,
    workers: Annotated[int, typer.Option("--workers", help="Threads of training and attacks.")] = 1,
) -> None:
    """Attack a virtual hospital (DCMTK, guard, Orthanc, model), layer after layer, and write a report."""
    import json
    import signal

    from titer.guard.operate.casestudy.plan import Settings
    from titer.guard.operate.casestudy.report import lines
    from titer.guard.operate.casestudy.run import casestudy as study

    settings = Settings(folder=folder, images=images, epochs=epochs, side=side, seed=seed, workers=workers)
    for name in (signal.SIGINT, signal.SIGTERM):  # either ends the guard and the archive that it started
        signal.signal(name, signal.default_int_handler)
    report = study(settings, typer.echo)
    results = json.loads(report.with_name("results.json").read_text(encoding="utf-8"))
    typer.echo("\n".join([*lines(results), f"report: {report}"]))


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
