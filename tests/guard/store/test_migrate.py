"""Migrations make the tables that the code names, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, insert, select, text
from tests.guard.postgres import Server, server

from titer.core.errors import SpecError
from titer.guard import keys
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.audit.verify import verified
from titer.guard.context import opened
from titer.guard.home import Home
from titer.guard.settings import load
from titer.guard.store.database import connect
from titer.guard.store.journal import Journal, NotStored
from titer.guard.store.migrate import current, newest, upgrade
from titer.guard.store.tables import baselines, metadata


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, postgres: Server) -> Iterator[Engine]:
    made = connect(Home(tmp_path), "sqlite:///guard.db" if request.param == "sqlite" else postgres.url)
    yield made
    with made.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    made.dispose()


def test_migrations_and_the_code_name_the_same_tables(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        assert current(connection) == newest()
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_database_that_is_up_to_date_is_left_as_it_is(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(insert(baselines).values(device="d", attribute="a", value="v", count=1))
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(select(baselines.c.device)).scalar_one() == "d"


def test_a_database_of_a_newer_version_is_refused(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SpecError, match="newer Titer"):
        upgrade(engine)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    engine = connect(Home(tmp_path), "postgresql://guard@127.0.0.1:9/none")
    with pytest.raises(SpecError, match="cannot be opened") as error:
        upgrade(engine)
    assert "\n" not in str(error.value)
    engine.dispose()


def test_the_chain_goes_on_after_postgresql_was_restarted_under_it(tmp_path: Path, postgres: Server) -> None:
    home = Home(tmp_path / "guard")
    keys.make(home.keys)
    home.settings.write_text(f'database = "{postgres.url}"\n')
    context = opened(home, load(home))
    event = audit_event(Kind.ACCESSED, action="R", agent="ines", at=0.0)
    try:
        _append(context.journal, event)
        postgres.stop()
        with pytest.raises(NotStored):
            _append(context.journal, event)
        postgres.start()
        _append(context.journal, event)
    finally:
        context.close()
    assert verified(home) == (2, [])


def _append(journal: Journal, event: dict[str, object]) -> None:
    journal.write(lambda connection: chain.append(connection, event, 0.0))
