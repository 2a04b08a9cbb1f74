"""Verify a guard's audit chain from its folder, with nothing of it running."""

from __future__ import annotations

from sqlalchemy import func, select

from titer.guard.audit import chain
from titer.guard.home import Home
from titer.guard.keys import VERIFYING, read
from titer.guard.settings import load
from titer.guard.store.database import connect
from titer.guard.store.tables import audit


def verified(home: Home) -> tuple[int, list[str]]:
    """Return how many rows the chain has, and what is wrong with it.

    Raises:
        SpecError: no guard stands there, or its verifying key is gone.
    """
    settings, public = load(home), read(home.keys / VERIFYING)
    engine = connect(home, settings.database)
    try:
        with engine.connect() as connection:
            found = list(chain.problems(connection, public, chain.kept(home.checkpoints)))
            rows = connection.execute(select(func.count()).select_from(audit)).scalar_one()
    finally:
        engine.dispose()
    return rows, found
