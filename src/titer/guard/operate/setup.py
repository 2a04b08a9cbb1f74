"""`titer guard init`: a new guard in an empty folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from titer.core.errors import SpecError
from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.settings import load

ADMIN = "admin"
DEMO_MODEL = "chest-xray"
SETTINGS = dedent("""\
    # A Titer guard. Paths are relative to this folder. Every setting: docs/reference/guard.md.
    # After a change: `titer guard check`.

    # SQLite in this folder, or a PostgreSQL server: postgresql://USER@HOST/NAME, with its password in a file that
    # PGPASSFILE names.
    database = "sqlite:///guard.db"

    # normal, raised or high: how much is looked at under load, and whether every result waits for a person. An
    # administrator can set another one at run time.
    threat_level = "normal"

    # Where modalities and PACS send to. It listens on this machine alone until you say otherwise; then name the
    # peers, and use TLS.
    [dicom]
    ae_title = "TITER"
    host = "127.0.0.1"
    port = 11112

    # Only these may send, once one stands here.
    # [[dicom.peers]]
    # ae_title = "CT1"
    # certificate = "SHA-256 fingerprint of its certificate"

    # [dicom.tls]
    # certificate = "tls/guard.pem"
    # key = "tls/guard.key"
    # authorities = "tls/authorities.pem"

    # Pages: review queue, dashboard, audit log.
    [web]
    host = "127.0.0.1"
    port = 8080
    session_minutes = 30

    # Where images and results go on to.
    # [[destinations]]
    # name = "pacs"
    # kind = "dicom"
    # address = "127.0.0.1:4242"
    # ae_title = "ORTHANC"

    # The first route that takes an object has it; modalities = [] takes all. `images` and `results` name destinations.
    [[routes]]
    name = "chest"
    modalities = ["CR", "DX"]
    model = "chest-xray"
    images = []
    results = []
    quiet_seconds = 10

    [[routes]]
    name = "rest"
    images = []

    # Disk that stays free, what one sender may store in a day (0: no quota), and how long judged objects are kept.
    [spool]
    free_mib = 1024
    sender_mib_per_day = 0
    keep_days = 30

    # The log is signed after so many rows or seconds. Copy checkpoints.jsonl to another machine: it shows a database
    # that was rolled back.
    [audit]
    checkpoint_rows = 1000
    checkpoint_seconds = 60
    """)

Account = Callable[[Context, str, str, str], None]
Model = Callable[[Path], object]


def init(folder: Path, *, account: Account, model: Model, settings: str = SETTINGS) -> Path:
    """Make a guard, and return the file that holds the administrator's first password.

    Args:
        folder: an empty or a new folder; nothing is left of it where something fails.
        account: makes an account: context, name, role, password.
        model: writes the demo model into a folder.
        settings: text of `guard.toml`.

    Raises:
        SpecError: the folder is not empty, or cannot be made.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"DIR = {str(folder)!r} is not empty: name a new folder")
    home = Home(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys.make(home.keys)
    except OSError as error:
        raise SpecError(f"DIR = {str(folder)!r} cannot be made: {error.strerror}") from None
    password = home.keys / "admin-password"
    model(home.models / DEMO_MODEL)
    temporary = home.settings.with_suffix(".part")
    temporary.write_text(settings, encoding="utf-8")
    temporary.replace(home.settings)
    context = opened(home, load(home))
    try:
        secret = secrets.token_urlsafe(16)
        account(context, ADMIN, "admin", secret)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secret + "\n")
    finally:
        context.close()
    return password
