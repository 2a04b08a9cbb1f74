"""The chain is signed in time, and objects are kept as long as they must be and no longer."""

import os
import time
from pathlib import Path

from sqlalchemy import insert, select, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.audit.verify import verified
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.operate import keeper as keeper_module
from titer.guard.operate.keeper import Keeper
from titer.guard.settings import load
from titer.guard.store.tables import checkpoints, objects, outbox

_DAY = 86_400.0


def _append(context: Context) -> None:
    event = audit_event(Kind.ACCESSED, action="R", agent="ines", at=0.0)
    context.journal.write(lambda connection: chain.append(connection, event, 0.0))


def _object(context: Context, uid: str, state: str, at: float) -> Path:
    path = context.home.root / uid
    path.write_bytes(b"DICM")
    row = dict.fromkeys(
        ("sop_class_uid", "study_instance_uid", "series_instance_uid", "transfer_syntax_uid", "route", "calling_ae"),
        "1.2",
    )
    row |= {"sop_instance_uid": uid, "digest": uid, "modality": "MR", "size": 4, "path": str(path), "peer": "-"}
    row |= {"state": state, "received_at": at}
    context.journal.write(lambda connection: connection.execute(insert(objects).values(**row)))
    return path


def test_g5_rows_are_signed_when_there_are_enough_of_them_and_when_it_stops(home: Home) -> None:
    home.settings.write_text("[audit]\ncheckpoint_rows = 3\ncheckpoint_seconds = 3600\n")
    context = opened(home, load(home))
    keeper = Keeper(context)
    keeper.start()
    for _ in range(3):
        _append(context)
    until = time.monotonic() + 20
    while not chain.kept(home.checkpoints) and time.monotonic() < until:
        time.sleep(0.05)
    assert [one.seq for one in chain.kept(home.checkpoints)] == [3]
    _append(context)
    keeper.stop()
    context.close()
    assert [one.seq for one in chain.kept(home.checkpoints)] == [3, 4]
    assert verified(home) == (4, [])


def test_a_clock_that_is_turned_back_does_not_stop_the_checkpoints(home: Home) -> None:
    now = [1_000_000.0]
    context = opened(home, load(home), clock=lambda: now[0])
    keeper = Keeper(context)
    keeper.start()
    _append(context)
    now[0] -= _DAY
    until = time.monotonic() + 20
    while not chain.kept(home.checkpoints) and time.monotonic() < until:
        time.sleep(0.05)
    keeper.stop()
    context.close()
    assert len(chain.kept(home.checkpoints)) == 1


def test_only_what_was_judged_and_delivered_long_ago_is_deleted(context: Context) -> None:
    now = context.clock()
    old = now - 31 * _DAY
    gone = _object(context, "1.1", "judged", old)
    kept = [
        _object(context, "1.2", "judged", now),
        _object(context, "1.3", "quarantined", old),
        _object(context, "1.4", "checked", old),
        _object(context, "1.5", "judged", old),
        _object(context, "1.6", "judged", old),
        _object(context, "1.7", "judged", old),
    ]
    states = {"1.5": "waiting", "1.6": "dead", "1.7": "withheld"}
    there = {"destination": "pacs", "kind": "object", "attempts": 0, "due_at": 0.0, "created_at": 0.0}
    waiting = [there | {"subject": uid, "digest": uid, "state": state} for uid, state in states.items()]
    context.journal.write(lambda connection: connection.execute(insert(outbox), waiting))
    reports = [context.home.root / folder / name for folder in ("results", "explanations") for name in ("old", "new")]
    for path in reports:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (old, old) if path.name == "old" else (now, now))
    assert Keeper(context).tidy() == 1
    assert all(path.exists() for path in reports), "something as old still has to go"
    assert not gone.exists()
    assert all(path.exists() for path in kept)
    with context.engine.connect() as connection:
        rows = (
            connection.execute(select(objects.c.sop_instance_uid).where(objects.c.state == "deleted")).scalars().all()
        )
        signed = connection.execute(select(checkpoints.c.seq)).scalars().all()
    context.journal.write(lambda connection: connection.execute(update(outbox).values(state="delivered")))
    assert Keeper(context).tidy() == 3
    assert [path.name for path in reports if path.exists()] == ["new", "new"]
    assert rows == ["1.1"]
    assert signed == []
    assert verified(context.home) == (4, [])


def test_a_day_with_more_objects_than_one_look_deletes_is_deleted_all_the_same(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(keeper_module, "_MOST", 3)
    monkeypatch.setattr(keeper_module, "_LOOK", 0.01)
    now = [1_000_000.0]
    context = opened(home, load(home), clock=lambda: now[0])
    paths = [_object(context, f"1.{number}", "judged", now[0] - 31 * _DAY) for number in range(7)]
    keeper = Keeper(context)
    keeper.start()
    now[0] += _DAY / 24
    until = time.monotonic() + 20
    while any(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.05)
    keeper.stop()
    context.close()
    assert [path.name for path in paths if path.exists()] == []
    assert verified(home) == (7, [])
