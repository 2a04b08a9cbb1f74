"""Migrations of the database's tables (Alembic): a guard brings its database up to date before it starts."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from titer.core.errors import SpecError
from titer.guard.store.database import WRITES

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Bring the tables up to the newest revision; on a new database this makes them.

    Raises:
        SpecError: the database cannot be reached, or was written by a newer Titer.
    """
    try:
        with engine.connect().execution_options(**WRITES) as connection, connection.begin():
            if _known(connection) is None:
                command.upgrade(_config(connection), "head")
    except SQLAlchemyError as error:
        raise SpecError(f"the database cannot be opened: {_first_line(error)}") from None


def newest() -> str:
    """Return the newest revision that this Titer knows."""
    head = ScriptDirectory(str(_SCRIPTS)).get_current_head()
    assert head is not None
    return head


def current(connection: Connection) -> str | None:
    """Return the revision of a database; None of one that holds no tables yet."""
    return MigrationContext.configure(connection).get_current_revision()


def _known(connection: Connection) -> str | None:
    """Return the revision where it is the newest one, None where there is something to do."""
    at = current(connection)
    known = {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    if at is not None and at not in known:
        raise SpecError(f"the database is of a newer Titer (revision {at}, known here: {newest()}): install that one")
    return at if at == newest() else None


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"
