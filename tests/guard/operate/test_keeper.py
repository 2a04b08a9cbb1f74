"""The chain is signed in time, and objects are kept as long as they must be and no longer."""

import os
import time
from pathlib import Path

from sqlalchemy import insert, select, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.audit.verify import verified
from titer.guard.context import Context, opened
from titer.guard.deliver.prepare import uid_of
from titer.guard.home import Home
from titer.guard.operate import keeper as keeper_module
from titer.guard.operate.keeper import Keeper
from titer.guard.settings import load
from titer.guard.store.tables import objects, outbox, verdicts

_DAY = 86_400.0
UNJUDGED = ("received", "checked", "quarantined")
PACS = """
[[destinations]]
name = "pacs"
kind = "dicom"
address = "127.0.0.1:1"
ae_title = "PACS"
"""


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
    row |= {"state": state, "received_at": at, "series_instance_uid": f"series-{uid}"}
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


def _queued(context: Context, **fields: str) -> None:
    row = {"destination": "pacs", "kind": "object", "attempts": 0, "due_at": 0.0, "created_at": 0.0} | fields
    context.journal.write(lambda connection: connection.execute(insert(outbox).values(digest=fields["subject"], **row)))


def _deleted(context: Context) -> list[str]:
    with context.engine.connect() as connection:
        gone = select(objects.c.sop_instance_uid).where(objects.c.state == "deleted").order_by(objects.c.id)
        return list(connection.execute(gone).scalars())


def test_only_what_was_judged_and_delivered_long_ago_is_deleted(home: Home) -> None:
    home.settings.write_text(home.settings.read_text() + PACS)
    context = opened(home, load(home))
    old = context.clock() - 31 * _DAY
    files = {number: _object(context, f"1.{number}", "judged", old) for number in range(1, 10)}
    files[10] = _object(context, "1.10", "judged", context.clock())
    files |= {11 + place: _object(context, f"1.{11 + place}", state, old) for place, state in enumerate(UNJUDGED)}
    for number, state in ((1, "waiting"), (2, "dead"), (3, "withheld"), (4, "delivered")):
        _queued(context, subject=f"1.{number}", state=state)
    _queued(context, subject="1.5", state="dead", destination="gone")
    for number, state in ((6, "dead"), (7, "withheld")):
        _queued(context, subject=f"series-1.{number}", kind="structured-report", state=state)
    heat = context.home.root / "explanations" / "heat.png"
    _queued(context, subject="1.8", kind="capture", state="waiting", path=str(heat))
    verdict = {"subject_kind": "series", "subject": "series-1.9", "route": "all", "input_digest": "d", "revision": 0}
    verdict |= {"outcome": "FLAG", "scores": {}, "state": "held", "urgency": 1, "created_at": old}
    context.journal.write(lambda connection: connection.execute(insert(verdicts).values(**verdict)))
    assert Keeper(context).tidy() == 3
    assert _deleted(context) == ["1.4", "1.5", "1.7"]
    assert [number for number, path in files.items() if not path.exists()] == [4, 5, 7]
    context.journal.write(lambda connection: connection.execute(update(outbox).values(state="delivered")))
    context.journal.write(lambda connection: connection.execute(update(verdicts).values(state="accepted")))
    assert Keeper(context).tidy() == 6
    assert [number for number, path in files.items() if path.exists()] == [10, 11, 12, 13]
    assert verified(context.home) == (9, [])
    context.close()


def test_reports_and_heat_maps_are_deleted_but_those_still_to_be_delivered(home: Home) -> None:
    home.settings.write_text(home.settings.read_text() + PACS)
    context = opened(home, load(home))
    now = context.clock()
    waits = f"results/{uid_of('structured-report', '1.1')}.dcm"
    names = ("results/old.dcm", "results/new.dcm", waits, "explanations/1/old.png", "explanations/1/sent.png")
    for name in names:
        path = context.home.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
        os.utime(path, (now, now) if "new" in name else (now - 31 * _DAY,) * 2)
    _queued(context, subject="1.1", kind="structured-report", state="dead")
    _queued(context, subject="1.2", kind="capture", state="waiting", path=str(context.home.root / names[4]))
    Keeper(context).tidy()
    assert [name for name in names if (context.home.root / name).exists()] == [names[1], names[2], names[4]]
    context.journal.write(lambda connection: connection.execute(update(outbox).values(state="withheld")))
    Keeper(context).tidy()
    assert [name for name in names if (context.home.root / name).exists()] == [names[1]]
    context.close()


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
