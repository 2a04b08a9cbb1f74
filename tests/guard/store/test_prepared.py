"""Statements that are made once do what the same statements do when SQLAlchemy executes them."""

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import postgresql

from titer.guard.context import Context
from titer.guard.store.prepared import Prepared
from titer.guard.store.tables import marks

_ADD = Prepared(insert(marks))
_MOVE = Prepared(update(marks).where(marks.c.name == bindparam("which")).values(value=marks.c.value + 5))
_READ = Prepared(select(marks.c.value, marks.c.name).where(marks.c.name != "none").order_by(marks.c.name))


def test_rows_are_written_changed_and_read_with_the_constants_of_the_statement(context: Context) -> None:
    def step(connection):
        for name, value in (("b", 2), ("a", 1), ("none", 0)):
            assert _ADD.run(connection, {"value": value, "name": name}) == 1
        assert _MOVE.run(connection, {"which": "a"}) == 1
        assert _MOVE.run(connection, {"which": "c"}) == 0
        return _READ.rows(connection, {}), connection.execute(select(marks.c.value, marks.c.name)).all()

    prepared, plain = context.journal.write(step)
    assert prepared == [(6, "a"), (2, "b")]
    assert set(map(tuple, plain)) == {(6, "a"), (2, "b"), (0, "none")}


def test_a_parameter_that_is_missing_is_an_error_and_writes_nothing(context: Context) -> None:
    with pytest.raises(KeyError):
        context.journal.write(lambda connection: _ADD.run(connection, {"name": "a"}))
    assert context.journal.write(lambda connection: _READ.rows(connection, {})) == []


def test_a_server_gets_its_parameters_by_name() -> None:
    made = _MOVE._compiled(postgresql.psycopg.dialect())
    assert made.order is None
    assert "%(which)s" in made.text
    assert made.constants["value_1"] == 5
