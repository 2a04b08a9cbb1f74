"""Backup and restore: settings, models, checkpoints and the database in one file; keys only where they are wanted."""

from __future__ import annotations

import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.settings import load

DATABASE = "guard.db"


def backup(home: Home, file: Path, *, with_keys: bool = False) -> list[str]:
    """Write a backup of a guard that may be running, and return what it holds.

    The database is copied by SQLite's online backup, which sees one state of it; of PostgreSQL nothing is written: use
    `pg_dump`. The spool is not in it: its objects are on their way, or at the PACS. Written under a temporary name,
    then renamed, readable by its owner alone.

    Args:
        home: the guard's folder.
        file: the file to write, `.tar.gz`.
        with_keys: put the keys in as well; whoever has the file can then sign as this guard.

    Raises:
        SpecError: no guard stands there, or the file is there already.
    """
    settings = load(home)
    if file.exists():
        raise SpecError(f"--out = {str(file)!r} is there already: name a new file")
    parts = [home.settings, home.checkpoints, home.models, *([home.keys] if with_keys else [])]
    temporary = file.with_name(f".{file.name}.part")
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(home, settings.database, Path(folder))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            held = [part for part in parts if part.exists()]
            for part in held:
                archive.add(part, arcname=part.name)
            if copy is not None:
                archive.add(copy, arcname=DATABASE)
    temporary.replace(file)
    return [*(part.name for part in held), *([DATABASE] if copy is not None else [])]


def restore(file: Path, folder: Path) -> Home:
    """Unpack a backup into a new folder.

    Where the guard went on after the backup was made, its newer checkpoints tell: copy its `checkpoints.jsonl` over the
    restored one, and `titer guard verify` names the rows that are lost.

    Raises:
        SpecError: the folder is not empty, or the file is no backup of a guard.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"DIR = {str(folder)!r} is not empty: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(file, mode="r:gz") as archive:
            archive.extractall(folder, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise SpecError(f"{file} is no backup of a guard: {error}") from None
    home = Home(folder).checked()
    if home.keys.exists():
        home.keys.chmod(0o700)
    return home


def _copied(home: Home, url: str, folder: Path) -> Path | None:
    if not url.startswith("sqlite:///"):
        return None
    source, copy = home.root / url.removeprefix("sqlite:///"), folder / DATABASE
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as from_, sqlite3.connect(copy) as to:
        from_.backup(to)
    from_.close()
    to.close()
    return copy
