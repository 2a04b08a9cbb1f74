"""`titer guard demo`: a guard between a modality and a real archive, and what becomes of two studies."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.setup import Account, Model, init
from titer.guard.operate.studies import send, study, tampered
from titer.guard.settings import load
from titer.guard.store.tables import findings, objects, outbox, verdicts

_SETTINGS = """\
# The demo's guard: {settings}
[dicom]
port = {dicom}

[web]
port = {web}

[[destinations]]
name = "archive"
kind = "dicom"
address = "{archive}"
ae_title = "ORTHANC"

[[routes]]
name = "chest"
modalities = ["CR", "DX"]
model = "chest-xray"
images = ["archive"]
results = ["archive"]
quiet_seconds = 2
budget_ms = 5000
"""
REVIEWER = "radiologist"
_IMAGES = 3
_PATIENCE = 120.0
_LOOK = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """What the demo takes from other parts: an account, the demo model, images [N, 1, H, W], and a running service."""

    account: Account
    model: Model
    images: Callable[[int], np.ndarray]
    serve: Callable[[Context], object]


def demo(folder: Path, makers: Makers, say: Callable[[str], None], ended: threading.Event) -> None:
    """Run the demo until `ended` is set; everything it starts is stopped again.

    Args:
        folder: an empty or a new folder.
        makers: of the other parts.
        say: told what happens, line by line.
        ended: set it beforehand to return as soon as both studies are judged.
    """
    with Orthanc(folder / "archive") as archive:
        dicom, web = _free(2)
        text = _SETTINGS.format(settings=folder, dicom=dicom, web=web, archive=archive.address)
        say("training the demo model, half a minute")
        password = init(folder / "guard", account=makers.account, model=makers.model, settings=text)
        home = Home(folder / "guard")
        context = opened(home, load(home))
        try:
            reviewing = _reviewer(context, makers)
            service = makers.serve(context)
            service.start()  # type: ignore[attr-defined]
            try:
                _tell(context, folder, makers, say)
                say(f"review queue: http://127.0.0.1:{web}/  account {REVIEWER}, first password in {reviewing}")
                say(f"dashboard: the same address, account admin, first password in {password}")
                say(f"archive: {archive.url}/app/explorer.html")
                if not ended.is_set():
                    say("Ctrl-C ends the demo")
                ended.wait()
            finally:
                service.stop()  # type: ignore[attr-defined]
        finally:
            context.close()


def _reviewer(context: Context, makers: Makers) -> Path:
    """Make an account that sees cases, which the administrator does not; returns the file of its first password."""
    file = context.home.keys / f"{REVIEWER}-password"
    secret = secrets.token_urlsafe(16)
    makers.account(context, REVIEWER, "radiologist", secret)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret + "\n")
    return file


def _tell(context: Context, folder: Path, makers: Makers, say: Callable[[str], None]) -> None:
    images = makers.images(2 * _IMAGES).astype(np.uint8)[:, 0]
    clean = study(list(images[:_IMAGES]), "clean")
    other = tampered(study(list(images[_IMAGES:]), "tampered"))
    address = f"127.0.0.1:{context.settings.dicom.port}"
    for name, files in (("clean", clean), ("tampered", other)):
        say(f"sending the {name} study: {len(files)} images by storescu to {address}")
        send(files, folder / "sent" / name, address, context.settings.dicom.ae_title)
    for line in _outcomes(context):
        say(line)


def _outcomes(context: Context) -> Iterator[str]:
    """Wait until nothing is left to judge or send, and yield what was decided and why."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and not _settled(context):
        time.sleep(_LOOK)
    with context.engine.connect() as connection:
        for row in connection.execute(select(verdicts).order_by(verdicts.c.id)):
            yield f"{row.outcome}: {row.subject_kind} {row.subject} ({row.state})"
            chosen = select(findings.c.rule, findings.c.reason).where(findings.c.verdict_id == row.id)
            for finding in connection.execute(chosen):
                yield f"    {finding.rule}: {finding.reason}"
        sent = select(outbox.c.kind, func.count()).where(outbox.c.state == "delivered").group_by(outbox.c.kind)
        counts = ", ".join(f"{count} x {kind}" for kind, count in connection.execute(sent).all())
        yield f"delivered to the archive: {counts or 'nothing'}"


def _settled(context: Context) -> bool:
    with context.engine.connect() as connection:
        open_ = select(func.count()).select_from(objects).where(objects.c.state.in_(("received", "checked")))
        waiting = select(func.count()).select_from(outbox).where(outbox.c.state == "waiting")
        judged = select(func.count()).select_from(verdicts)
        left = [connection.execute(one).scalar_one() for one in (open_, waiting)]
        return connection.execute(judged).scalar_one() > 0 and not any(left)


def _free(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
