"""Every write is durable when it is acknowledged, and fails alone."""

import sqlite3
import threading

import pytest
from sqlalchemy import func, insert, select

from titer.guard.context import Context
from titer.guard.store.database import connect
from titer.guard.store.journal import Journal, NotStored
from titer.guard.store.tables import baselines


def _row(number: int) -> dict[str, object]:
    return {"device": "d", "attribute": "PixelSpacing", "value": str(number), "count": 1}


def _count(context: Context) -> int:
    with context.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(baselines)).scalar_one()


def test_writes_of_many_threads_are_all_there_when_they_are_acknowledged(context: Context) -> None:
    def send(start: int) -> None:
        for number in range(start, start + 50):
            context.journal.write(lambda connection, n=number: connection.execute(insert(baselines).values(_row(n))))

    threads = [threading.Thread(target=send, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _count(context) == 400


def test_a_step_that_fails_takes_nothing_of_its_neighbours_with_it(context: Context) -> None:
    def fails(connection: object) -> None:
        connection.execute(insert(baselines).values(_row(7)))
        raise ZeroDivisionError

    steps = [context.journal.submit(lambda c, n=n: c.execute(insert(baselines).values(_row(n)))) for n in range(5)]
    failed = context.journal.submit(fails)
    later = context.journal.submit(lambda c: c.execute(insert(baselines).values(_row(8))))
    assert [step.exception() for step in (*steps, later)] == [None] * 6
    with pytest.raises(ZeroDivisionError):
        failed.result()
    assert _count(context) == 6


def test_a_database_that_cannot_commit_is_said_to_the_sender_and_the_next_write_works(context: Context) -> None:
    engine = connect(context.home, "sqlite:///guard.db")
    with engine.connect() as warm, warm.begin():
        warm.exec_driver_sql("SELECT 1")
    journal = Journal(engine)
    other = sqlite3.connect(context.home.root / "guard.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    with pytest.raises(NotStored, match="database is locked"):
        journal.write(lambda c: c.execute(insert(baselines).values(_row(1))))
    other.execute("ROLLBACK")
    other.close()
    journal.write(lambda c: c.execute(insert(baselines).values(_row(2))))
    journal.close()
    engine.dispose()
    assert _count(context) == 1
