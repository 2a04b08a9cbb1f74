"""What is asked of the database for each object and series must not take longer the more of them there have been."""

import re
from dataclasses import replace

from sqlalchemy import event
from tests.guard.judge.scene import receive, verdicts_of
from tests.guard.judge.test_pipeline import Models, Run

from titer.guard.checks.past import DatabasePast
from titer.guard.operate.keeper import Keeper
from titer.guard.receive.quota import Quotas
from titer.guard.web.cases import Filter, choices, neighbours, queue
from titer.guard.web.trends import Stretch, numbers
from titer.guard.web.upkeep import alerts, upkeep

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


def test_no_page_and_no_housekeeping_reads_a_whole_table(guard, log):
    run = Run(guard, log, Models())
    receive(run.context, "1.2.3.1", number=1)
    run.judge()
    context = run.context
    spool = context.settings.spool.model_copy(update={"sender_mib_per_day": 1})
    context = replace(context, settings=context.settings.model_copy(update={"spool": spool}))
    statements = _asked(context)
    with context.engine.connect() as connection:
        now = context.clock()
        numbers(connection, Stretch(start=now - 3600, end=now))
        upkeep(connection, context), alerts(connection, now - 3600)
        for wanted in (Filter(), Filter(modality="DX"), Filter(state=None), Filter(state="released")):
            queue(connection, wanted)
        assert choices(connection)["modality"] == ["DX"]
        neighbours(connection, 1)
    Keeper(context).tidy()
    Quotas(context).take("CT", 1)
    assert len(statements) > 15
    asked = {one: given for one, given in statements.items() if one.startswith(("SELECT", "UPDATE", "DELETE", "WITH"))}
    slow = {one: steps for one, given in asked.items() if (steps := _slow(context, one, given))}
    # What was delivered is counted, in the index; the newest cases are read in their order, up to a page of them.
    counted = [one for one, steps in slow.items() if all("USING COVERING INDEX" in step for step in steps)]
    newest = [one for one, steps in slow.items() if steps == ["SCAN verdicts USING INDEX ix_verdicts_created_at"]]
    assert set(slow) == {*counted, *newest}
    assert [one for one in counted if "GROUP BY outbox.destination" not in one] == [
        "SELECT count(*) AS count_1 \nFROM verdicts"
    ]
    assert len(newest) == 1
    assert newest[0].endswith("LIMIT ? OFFSET ?")
