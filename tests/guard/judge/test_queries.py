"""What is asked of the database for each object and series must not take longer the more of them there have been."""

import re

from sqlalchemy import event
from tests.guard.judge.scene import receive, verdicts_of
from tests.guard.judge.test_pipeline import Models, Run

from titer.guard.checks.past import DatabasePast

GROWING = "objects|series|verdicts|outbox|findings|reviews|audit"


def _asked(context) -> dict[str, tuple]:
    """Collect the statements that the guard executes from now on, with the parameters of the first time."""
    statements: dict[str, tuple] = {}

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        statements.setdefault(statement, parameters)

    event.listen(context.engine, "before_cursor_execute", note)
    return statements


def _slow(context, statement: str, parameters: tuple) -> list[str]:
    """Return the steps of SQLite's plan that read a whole table, or all rows of a state where one row was named."""
    with context.engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    named = re.search(r"(uid|subject|digest) = \?", statement)
    whole = rf"SCAN ({GROWING})\b"
    by_state = r"INDEX ix_\w*state\w* \(state=\?" if named else "$^"
    return [step for step in plan if re.search(whole, step) or re.search(by_state, step)]


def test_no_question_about_an_object_or_a_series_reads_a_whole_table(guard, log):
    run = Run(guard, log, Models())
    statements = _asked(run.context)
    for number in (1, 2):
        receive(run.context, f"1.2.3.{number}", number=number)
    run.judge()
    receive(run.context, "1.2.3.3", number=3)  # late: what was held of the series is superseded
    run.judge()
    with run.context.engine.connect() as connection:
        past = DatabasePast(connection, b"key")
        past.patients("1.2"), past.same_uid("1.2.3.1")
    asked = {one: given for one, given in statements.items() if one.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(asked) > 10
    assert len(verdicts_of(run.context)) == 2
    slow = {one: steps for one, given in asked.items() if (steps := _slow(run.context, one, given))}
    assert slow == {}
