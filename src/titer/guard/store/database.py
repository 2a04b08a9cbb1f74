"""The database: SQLite in the guard's folder, or PostgreSQL by URL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from titer.core.errors import SpecError
from titer.guard.home import Home

WRITES = {"writes": True}
"""Options of a connection that will write: SQLite then takes its lock at the start, and waits instead of failing."""
_WAIT_MS = 10_000
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


def connect(home: Home, url: str) -> Engine:
    """Open the database of a guard; nothing is read yet.

    Args:
        home: a path of SQLite is relative to its folder.
        url: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`; a password stands in `PGPASSFILE`, not here.

    Raises:
        SpecError: another kind of database, or a password in the URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SpecError(
            f"database = {url!r} is no URL: allowed are sqlite:///FILE, postgresql://USER@HOST/NAME"
        ) from None
    kind = parsed.drivername
    if kind not in _DRIVERS:
        raise SpecError(f"database = {url!r} is not allowed: sqlite:///FILE or postgresql://USER@HOST/NAME")
    if parsed.password:
        raise SpecError("database: no password may stand in guard.toml: put it into a file that PGPASSFILE names")
    if kind == "sqlite":
        parsed = parsed.set(database=str(home.root / (parsed.database or "guard.db")))
        engine = create_engine(parsed, connect_args={"timeout": _WAIT_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(parsed.set(drivername=_DRIVERS[kind]), pool_pre_ping=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Begin transactions ourselves, and let a commit return only when it is durable (WAL and synchronous = FULL)."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {_WAIT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
