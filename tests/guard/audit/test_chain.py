"""Every change to the audit log shows (G5)."""

import shutil

import pytest
from sqlalchemy import delete, text, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.audit.verify import verified
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.keys import make
from titer.guard.settings import load
from titer.guard.store.tables import audit, audit_head


def _fill(context: Context, rows: int, first: int = 0) -> None:
    for number in range(first, first + rows):
        event = audit_event(Kind.ACCESSED, action="R", agent="ines", at=float(number), what={"study": f"1.2.{number}"})
        context.journal.write(lambda connection, event=event: chain.append(connection, event, 0.0))


def _sign(context: Context) -> None:
    made = context.journal.write(lambda connection: chain.checkpoint(connection, context.signer, 9.0))
    assert made is not None
    chain.keep(context.home.checkpoints, made)


def test_a_chain_that_nobody_touched_is_whole(context: Context, home: Home) -> None:
    _fill(context, 12)
    _sign(context)
    _fill(context, 3, first=12)
    assert verified(home) == (15, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE audit SET event = replace(event, 'ines', 'otto') WHERE seq = 5", "row 5 does not follow"),
        ("DELETE FROM audit WHERE seq = 5", "rows 5 to 5 are missing"),
        ("UPDATE audit SET seq = CASE seq WHEN 5 THEN -6 WHEN 6 THEN -5 ELSE seq END", "row"),
        ("DELETE FROM audit WHERE seq > 8", "the chain ends at row 8, but was signed with 12 rows"),
        ("DELETE FROM audit", "the chain ends at row 0"),
    ],
)
def test_a_row_edited_deleted_moved_or_cut_off_is_named(context: Context, home: Home, change: str, said: str) -> None:
    _fill(context, 12)
    _sign(context)
    with context.engine.begin() as connection:
        connection.execute(text(change))
        connection.execute(text("UPDATE audit SET seq = -seq WHERE seq < 0"))
    _rows, problems = verified(home)
    assert any(said in problem for problem in problems), problems


def test_a_chain_that_was_written_anew_from_a_row_on_is_not_the_one_that_was_signed(
    context: Context, home: Home
) -> None:
    _fill(context, 6)
    _sign(context)
    with context.engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.seq >= 4))
        before = connection.execute(text("SELECT digest FROM audit WHERE seq = 3")).scalar_one()
        connection.execute(update(audit_head).values(seq=3, digest=before))
    _fill(context, 3, first=100)
    _rows, problems = verified(home)
    assert problems == ["row 6 is not the one that was signed"]


def test_an_old_copy_of_the_database_is_known_by_the_checkpoints_outside_it(context: Context, home: Home) -> None:
    _fill(context, 4)
    _sign(context)
    with context.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(home.root / "guard.db", home.root / "old.db")
    _fill(context, 4, first=4)
    _sign(context)
    context.close()
    shutil.copy(home.root / "old.db", home.root / "guard.db")
    (home.root / "guard.db-wal").unlink(missing_ok=True)
    _rows, problems = verified(home)
    assert problems == [
        "the chain ends at row 4, but was signed with 8 rows: some were cut off, or an old copy restored"
    ]


def test_a_checkpoint_of_another_key_is_not_believed(context: Context, home: Home) -> None:
    _fill(context, 2)
    _sign(context)
    for file in home.keys.iterdir():
        file.unlink()
    make(home.keys)
    _rows, problems = verified(home)
    assert "the checkpoint at row 2 is not signed by this guard's key" in problems


def test_no_checkpoint_is_made_where_no_row_came(context: Context) -> None:
    assert context.journal.write(lambda connection: chain.checkpoint(connection, context.signer, 1.0)) is None
    _fill(context, 1)
    _sign(context)
    assert context.journal.write(lambda connection: chain.checkpoint(connection, context.signer, 2.0)) is None


def test_a_chain_goes_on_after_a_restart(context: Context, home: Home) -> None:
    _fill(context, 3)
    context.close()
    again = opened(home, load(home))
    _fill(again, 3, first=3)
    again.close()
    assert verified(home) == (6, [])
