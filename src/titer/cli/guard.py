"""`titer guard`: the gateway between the PACS and the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from titer.core.errors import SpecError
from titer.core.extras import need

if TYPE_CHECKING:
    from titer.guard.context import Context
    from titer.guard.home import Home

guard = typer.Typer(no_args_is_help=True, help="Run the gateway that checks, watches and holds what is suspicious.")
Folder = Annotated[Path, typer.Argument(help="The guard's folder, as `titer guard init` makes it.")]


def _home(folder: Path) -> Home:
    from titer.guard.home import Home

    return Home(folder).checked()


@contextmanager
def _opened(home: Home) -> Iterator[Context]:
    """Open a guard's database, whether the guard runs or not."""
    from titer.guard.context import opened
    from titer.guard.settings import load

    context = opened(home, load(home))
    try:
        yield context
    finally:
        context.close()


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
    typer.echo(f"settings: {folder / 'guard.toml'}\naccount: {ADMIN}, first password in {password}")
    typer.echo(f"now: titer guard run {folder}")


@guard.command()
def account(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The account's name.")],
    role: Annotated[str | None, typer.Option("--role", help="admin, radiologist, reviewer or auditor.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Give an account that exists another password, and unlock it.")
    ] = False,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="A file with the password; without it you are asked.")
    ] = None,
) -> None:
    """Make an account, or reset its password; its owner has to change the password at the next login."""
    from titer.guard.keys import read
    from titer.guard.operate import people

    if (role is None) is not reset:
        raise SpecError("--role makes an account, --reset changes one that exists: give one of them")
    home = _home(folder)
    if password_file is None:
        password = typer.prompt("password", hide_input=True, confirmation_prompt=True)
    else:
        password = read(password_file).decode("utf-8", "replace").strip()
    with _opened(home) as context:
        if role is None:
            people.reset(context, name, password)
        else:
            people.add(context, name, role, password)
    typer.echo(f"{name}: {role or 'reset'}; the password has to be changed at the first login")


@guard.command()
def token(
    folder: Folder,
    name: Annotated[str | None, typer.Argument(help="The service's account; it is made where there is none.")] = None,
    role: Annotated[str, typer.Option("--role", help="The account's role: service.")] = "service",
    label: Annotated[str, typer.Option("--label", help="What the token is for.")] = "command line",
    days: Annotated[int, typer.Option("--days", min=1, max=730, help="Days until it expires.")] = 90,
    listed: Annotated[
        bool, typer.Option("--list", help="List tokens, of all accounts or of one; none is shown.")
    ] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the account's tokens of this label.")] = False,
) -> None:
    """Issue a token to a service, list tokens, or revoke one. A new token is shown once: only its digest is kept."""
    from datetime import UTC, datetime

    from titer.guard.operate import people

    if listed and revoke:
        raise SpecError("--list and --revoke: give one of them")
    if name is None and not listed:
        raise SpecError("NAME is missing: name the service's account")
    with _opened(_home(folder)) as context:
        if listed:
            for one in people.issued(context, name):
                until = datetime.fromtimestamp(one.expires_at, UTC).date()
                typer.echo(f"{one.account}: {one.label}, until {until}")
        elif revoke:
            people.revoke(context, str(name), label)
            typer.echo(f"{name}: {label} revoked")
        else:
            typer.echo(people.issue(context, str(name), role, label, days))


@guard.command()
def receipt(
    folder: Folder,
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write it to this file instead of printing it.")] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="Verify this saved receipt instead of making one.")
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="With --verify: a file that should be what was received.")
    ] = None,
) -> None:
    """Print the signed receipt of a study as JSON, or verify one (exit status 1 where it is wrong)."""
    import json

    from titer.guard.home import Home
    from titer.guard.operate import receipts

    if verify is None:
        with _opened(_home(folder)) as context:
            text = json.dumps(receipts.made(context, study), indent=2, ensure_ascii=False)
        if out is None:
            typer.echo(text)
        else:
            out.write_text(text + "\n", encoding="utf-8")
        return
    found = receipts.wrong(Home(folder), study, verify, file or ())
    for problem in found:
        typer.echo(problem)
    if found:
        raise typer.Exit(1)
    typer.echo(f"the receipt is of study {study} and signed by this guard")


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
