"""A guard that receives, on a free port of loopback."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Table, select

from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.receive.component import Receiver
from titer.guard.settings import load

ROUTE = '[[routes]]\nname = "all"\n'


class Guard:
    """A running receiver, and looks into its database."""

    def __init__(self, home: Home, **options: Any) -> None:
        self.home = home
        self.context: Context = opened(home, load(home))
        self.receiver = Receiver(self.context, port=0, **options)
        self.receiver.start()

    @property
    def port(self) -> int:
        return self.receiver.port

    def rows(self, table: Table) -> list[Any]:
        self.context.journal.write(lambda _connection: None)  # alerts are written behind what is answered
        with self.context.engine.connect() as connection:
            return list(connection.execute(select(table)).all())

    def files(self) -> list[str]:
        """What stands in the spool."""
        return sorted(str(path.relative_to(self.home.spool)) for path in self.home.spool.rglob("*") if path.is_file())

    def stop(self) -> None:
        self.receiver.stop()
        self.context.close()


@pytest.fixture
def start(home: Home) -> Iterator[Callable[..., Guard]]:
    """Start a guard with settings beside one route that takes everything."""
    running: list[Guard] = []

    def make(settings: str = "", route: str = ROUTE, **options: Any) -> Guard:
        for guard in running:
            guard.stop()
        home.settings.write_text(f"[spool]\nfree_mib = 1\n{settings}\n{route}")
        running[:] = [Guard(home, **options)]
        return running[0]

    yield make
    for guard in running:
        guard.stop()


@pytest.fixture
def guard(start: Callable[..., Guard]) -> Guard:
    """A guard with the default settings."""
    return start()
