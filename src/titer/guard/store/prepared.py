"""Statements that run for every object, with their SQL made once for each kind of database.

To execute a statement of SQLAlchemy costs several times what SQLite needs for the work itself, even where its compiled
form is cached; the writes of all objects go through one thread, so that this is what bounds how many come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect, Executable
from sqlalchemy.sql.compiler import SQLCompiler


@dataclass(frozen=True, slots=True)
class _Made:
    text: str
    order: tuple[str, ...] | None
    constants: Mapping[str, Any]


class Prepared:
    """A statement of texts and numbers alone: no type of its columns may need to convert a value."""

    def __init__(self, statement: Executable, columns: Sequence[str] | None = None) -> None:
        """Take a statement.

        Args:
            statement: its parameters are `bindparam`s, or the columns of an insert.
            columns: those that an insert writes; None for all of its table.
        """
        self._statement, self._columns = statement, columns
        self._made: dict[str, _Made] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Execute it; returns how many rows it wrote."""
        return self._executed(connection, values).rowcount

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute it; returns the rows that it found."""
        return [tuple(row) for row in self._executed(connection, values)]

    def _executed(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        made = self._made.get(connection.dialect.name) or self._compiled(connection.dialect)
        given = {**made.constants, **values}
        if made.order is None:
            return connection.exec_driver_sql(made.text, given)
        return connection.exec_driver_sql(made.text, tuple([given[name] for name in made.order]))

    def _compiled(self, dialect: Dialect) -> _Made:
        made = self._statement.compile(dialect=dialect, column_keys=self._columns)  # type: ignore[attr-defined]
        assert isinstance(made, SQLCompiler)
        constants = {name: one.effective_value for name, one in made.binds.items() if not one.required}
        order = None if made.positiontup is None else tuple(made.positiontup)
        return self._made.setdefault(dialect.name, _Made(made.string, order, constants))
