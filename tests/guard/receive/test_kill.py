"""A guard that is killed at any point loses nothing that it acknowledged, and shows nothing half (G1)."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_peers import Raw, body, slice_of
from pydicom import Dataset

from titer.guard.audit.verify import verified
from titer.guard.home import Home
from titer.guard.store.tables import objects

POINTS = ("part", "fsync", "rename", "journal", "ack")
VICTIM = Path(__file__).with_name("dicom_victim.py")


def _victim(home: Home, point: str, number: int) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(VICTIM), str(home.root), point, str(number)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _send(port: int, slices: list[Dataset], calling: str, acknowledged: dict[str, bytes]) -> None:
    """Send until the guard is gone; what it acknowledged is noted."""
    try:
        with Raw(port, calling=calling) as peer:
            if peer.associate() != 2:
                return
            for message, one in enumerate(slices):
                content = body(one)
                if peer.store(str(one.SOPInstanceUID), content, message + 1)[0] == 0:
                    acknowledged[str(one.SOPInstanceUID)] = content
    except OSError:
        pass  # it is dead


def _killed(home: Home, point: str, number: int, seed: int) -> dict[str, bytes]:
    """Send on two associations until it dies; returns what it had acknowledged."""
    process, port = _victim(home, point, number)
    acknowledged: dict[str, bytes] = {}
    shares = [[slice_of(1000 * seed + 100 * share + n, side=200) for n in range(12)] for share in range(2)]
    threads = [
        threading.Thread(target=_send, args=(port, share, f"CT{index}", acknowledged))
        for index, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(30) == -9, "it was to die at this point"
    assert process.stdout is not None
    process.stdout.close()
    return acknowledged


def _check(start: Callable, home: Home, acknowledged: dict[str, bytes]) -> None:
    names = list(home.spool.rglob("*.dcm"))
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in names), "a half file is visible"
    guard = start()  # recovers
    rows = {row.sop_instance_uid: row for row in guard.rows(objects)}
    for uid, content in acknowledged.items():
        assert uid in rows, "an acknowledged object was lost"
        assert Path(rows[uid].path).read_bytes().endswith(content)
    assert sorted(guard.files()) == sorted(str(Path(row.path).relative_to(home.spool)) for row in rows.values())
    assert verified(home)[1] == []
    guard.stop()


def _repeat(start: Callable, home: Home, point: str, times: int) -> None:
    start().stop()  # lays the folder out
    acknowledged: dict[str, bytes] = {}
    for turn in range(times):
        acknowledged |= _killed(home, point, 1 + 3 * turn % 16, turn)
        _check(start, home, acknowledged)
    assert acknowledged or times == 1


@pytest.mark.parametrize("point", POINTS)
def test_g1_kill_9_loses_nothing_that_was_acknowledged(start: Callable, home: Home, point: str) -> None:
    _repeat(start, home, point, 2)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_g1_kill_9_twenty_times_loses_nothing_that_was_acknowledged(start: Callable, home: Home, point: str) -> None:
    _repeat(start, home, point, 20)
