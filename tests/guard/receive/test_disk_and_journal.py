"""What disk or journal do not take is refused with 0xA700, and what they took is there (G1)."""

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_peers import Raw, body, slice_of
from sqlalchemy import update

from titer.core.errors import SpecError
from titer.guard.context import opened
from titer.guard.receive.component import Receiver
from titer.guard.settings import load
from titer.guard.store.tables import audit, objects

FULL = 0xA700


def _send(guard, number: int = 1, side: int = 64) -> tuple[int, str]:
    one = slice_of(number, side=side)
    with Raw(guard.port) as peer:
        peer.associate()
        return peer.store(one.SOPInstanceUID, body(one))


def test_a_disk_below_its_watermark_takes_nothing(start: Callable) -> None:
    guard = start()
    assert _send(guard, 1)[0] == 0
    guard.receiver.intake.spool._free = 1 << 62
    assert guard.receiver.trouble() == "the disk is too full to receive"
    assert _send(guard, 2) == (FULL, "disk too full")
    assert _send(guard, 3, side=1024) == (FULL, "disk too full")
    guard.receiver.intake.spool._free = 0
    assert _send(guard, 2)[0] == 0
    assert len(guard.rows(objects)) == 2


def _fault(at: str, error: int) -> Callable[[str], None]:
    def fault(point: str) -> None:
        if point == at:
            raise OSError(error, "no")

    return fault


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("point", ["part", "fsync", "rename"])
def test_a_disk_that_fails_at_any_point_is_told_and_leaves_no_part(start: Callable, point: str, error: int) -> None:
    guard = start(faults=_fault(point, error))
    assert _send(guard) == (FULL, "disk does not take it")
    assert guard.rows(objects) == []
    assert not any("part" in name for name in guard.files())
    assert "0xA700" in guard.rows(audit)[0].event


def test_a_folder_that_cannot_be_written_is_told(guard) -> None:
    guard.receiver.intake.spool.incoming.rmdir()
    assert _send(guard, 1) == (FULL, "disk does not take it")
    assert _send(guard, 2, side=1024) == (FULL, "disk does not take it")
    guard.receiver.intake.spool.incoming.mkdir()
    assert _send(guard, 1)[0] == 0


def test_g1_a_journal_that_cannot_commit_is_told_and_the_retry_succeeds(guard) -> None:
    with guard.context.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(guard.home.root / "guard.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with guard.context.engine.connect() as one, one.begin():
            one.exec_driver_sql("PRAGMA busy_timeout = 50")
        assert _send(guard) == (FULL, "journal does not take it")
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert guard.rows(objects) == []
    assert _send(guard) == (0, "")
    assert len(guard.rows(objects)) == len(guard.files()) == 1


def test_what_a_stop_left_is_cleared_and_what_is_missing_is_reported(start: Callable) -> None:
    guard = start()
    for number in (1, 2):
        assert _send(guard, number)[0] == 0
    lost, kept = guard.rows(objects)
    spool = guard.home.spool
    guard.receiver.stop()
    (spool / "incoming" / "ab.part").write_bytes(b"half")
    stray = spool / "00" / f"{'0' * 64}.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"never acknowledged")
    Path(lost.path).unlink()
    again = Receiver(guard.context, port=0)
    again.start()
    again.stop()
    assert guard.files() == [str(Path(kept.path).relative_to(spool))]
    said = [row.event for row in guard.rows(audit) if "its file is gone" in row.event]
    assert len(said) == 1
    assert lost.digest[:16] in said[0]


def test_g1_a_row_whose_files_new_name_was_lost_with_the_power_finds_it_again(guard) -> None:
    assert _send(guard)[0] == 0
    [row] = guard.rows(objects)
    guard.receiver.stop()
    Path(row.path).rename(guard.home.spool / "incoming" / "ab.part")
    again = Receiver(guard.context, port=0)
    again.start()
    again.stop()
    assert Path(row.path).is_file()
    assert guard.files() == [str(Path(row.path).relative_to(guard.home.spool))]
    assert len(guard.rows(audit)) == 1


def test_an_object_that_was_deleted_after_its_time_is_taken_again(guard) -> None:
    assert _send(guard)[0] == 0
    [row] = guard.rows(objects)
    Path(row.path).unlink()
    guard.context.journal.write(lambda c: c.execute(update(objects).values(state="deleted")))
    assert _send(guard)[0] == 0
    [again] = guard.rows(objects)
    assert again.state == "received"
    assert Path(again.path).is_file()


def test_an_object_that_was_quarantined_stays_where_it_is(guard) -> None:
    assert _send(guard)[0] == 0
    [row] = guard.rows(objects)
    guard.home.quarantine.mkdir()
    away = Path(row.path).replace(guard.home.quarantine / "x.dcm")
    change = update(objects).values(state="quarantined", path=str(away))
    guard.context.journal.write(lambda c: c.execute(change))
    assert _send(guard)[0] == 0
    assert guard.files() == []
    assert guard.rows(objects)[0].state == "quarantined"


def test_a_port_in_use_is_named(guard) -> None:
    other = opened(guard.home, load(guard.home))
    with pytest.raises(SpecError, match=f"dicom.port = {guard.port}"):
        Receiver(other, port=guard.port).start()
    other.close()


def test_a_guard_that_stops_lets_the_object_in_hand_finish(start: Callable) -> None:
    guard = start()
    one = slice_of(1, side=512)
    with Raw(guard.port) as peer:
        peer.associate()
        peer.send(b"")
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
        guard.receiver.stop()
        assert peer.receive()[0] in (0, 7)
    assert guard.receiver.trouble() == "the DICOM port is not served"
    assert len(guard.rows(objects)) == 1
