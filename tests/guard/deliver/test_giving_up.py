"""When an item is tried again and when it is given up; a killed guard sends what it had not marked (G2)."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.guard.deliver.delivery_victim import POINTS
from tests.guard.deliver.peers import (
    QUICK,
    SERIES,
    Faulty,
    copies,
    data_bytes,
    destination,
    faulty,
    free_port,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""pynetdicom drops the socket of a refused connection without closing it; the interpreter closes it at once."""


def test_the_breaker_opens_lets_one_item_try_and_closes_when_it_is_through(make_guard):
    peer = Faulty(answer=lambda _event: 0xA700)
    more = "retry_seconds = 0.5\nlongest_pause_seconds = 1.0\ntimeout_seconds = 1.0\nfailures_to_open = 3"
    with faulty(peer):
        guard = make_guard(destination("pacs", "dicom", peer.address, more))
        asked = []
        answer = peer.answer
        peer.answer = lambda event: (asked.append(time.monotonic()), answer(event))[1]
        for content in copies(10):
            guard.receive(content, "pacs")
        guard.start()
        until(lambda: guard.deliverer.breakers()["pacs"] == "open")
        assert len(asked) == 3
        until(lambda: len(asked) >= 5)
        assert min(later - before for before, later in itertools.pairwise(asked[2:])) > 0.2
        answer = lambda _event: 0x0000  # noqa: E731
        guard.settled(count=10)
        assert guard.deliverer.breakers()["pacs"] == "closed"


def test_an_item_is_dead_only_after_enough_tries_over_enough_time_and_can_be_sent_again(make_guard, ct):
    from titer.guard.deliver.watch import backlogs, retry, stuck

    now = [1_000_000.0]
    port = free_port()
    more = QUICK + "\nattempts = 3\ngive_up_hours = 2.0"
    guard = make_guard(destination("pacs", "dicom", f"127.0.0.1:{port}", more), clock=lambda: now[0])
    guard.receive(ct, "pacs")
    guard.start()
    while guard.items()[0].attempts < 5:
        now[0] += 0.3
        time.sleep(0.05)
    assert guard.items()[0].state == "waiting"
    now[0] += 7200
    (item,) = guard.settled("dead")
    assert len(guard.audited('"110100"')) == 1
    with guard.context.engine.connect() as connection:
        (line,) = backlogs(connection)
        assert (line.destination, line.dead, line.waiting) == ("pacs", 1, 0)
        assert stuck(connection)[0]["id"] == item.id
    with faulty(Faulty(), port) as peer:
        assert retry(guard.context, item.id, "ines")
        now[0] += 10
        guard.settled()
        assert len(peer.stored) == 1
    assert not retry(guard.context, item.id, "ines")
    assert len(guard.audited("retry delivery")) == 1


def test_a_clock_that_was_set_back_delays_nothing(make_guard, ct):
    now = [2_000_000.0]
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address), clock=lambda: now[0])
        guard.receive(ct, "pacs")
        now[0] -= 86400
        guard.start()
        guard.settled()
        assert len(peer.stored) == 1


VICTIM = Path(__file__).with_name("delivery_victim.py")


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_g2_twenty_kills_around_a_transfer_lose_nothing_and_double_nothing_in_effect(point, make_guard, orthanc, web):
    for number in range(20):
        series = f"1.2.826.0.1.3680043.2.1125.9.{POINTS.index(point)}.{number}"
        _killed(point, make_guard(*_both(orthanc, web)), orthanc, web, series)


@pytest.mark.parametrize("point", POINTS)
def test_g2_a_kill_around_a_transfer_loses_nothing_and_doubles_nothing_in_effect(point, make_guard, orthanc, web):

    _killed(point, make_guard(*_both(orthanc, web)), orthanc, web, SERIES)


def _both(orthanc, web):
    return destination("pacs", "dicom", orthanc.address), destination("records", "fhir", web.address)


def _killed(point, guard, orthanc, web, series):
    """Queue an image, a report and a resource, kill the guard that sends them, and let another one go on."""
    from titer.guard.deliver.results import release

    content = copies(1, series)[0]
    uid = guard.receive(content, "pacs")
    guard.run(release, guard.judge(series))
    before, kept, known = len(orthanc.instances()), len(web.kept), len(guard.items(state="delivered"))
    child = subprocess.Popen(
        [sys.executable, str(VICTIM), str(guard.context.home.root), point], env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert child.wait(60) == -signal.SIGKILL
    guard.start()
    guard.settled(count=known + 3)
    guard.stop()
    assert data_bytes(orthanc.file(uid)) == data_bytes(content)
    assert len(orthanc.instances()) == before + 2  # the image and the report about it, each once
    assert len(web.kept) == kept + 1


def test_what_was_sent_is_not_sent_again_while_the_database_cannot_note_it(make_guard, monkeypatch):
    from titer.guard.store.journal import NotStored

    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        for content in copies(3):
            guard.receive(content, "pacs")
        submit, full = guard.context.journal.submit, [True]

        def locked(step):
            if not full[0]:
                return submit(step)

            def fails(connection):
                step(connection)
                raise NotStored("the database could not commit: full")

            return submit(fails)

        monkeypatch.setattr(guard.context.journal, "submit", locked)
        deliverer = guard.start()
        until(lambda: deliverer.trouble() is not None)
        time.sleep(2.5)
        assert len(peer.stored) == 3
        assert {item.state for item in guard.items()} == {"waiting"}
        full[0] = False
        guard.settled(count=3)
        assert len(peer.stored) == 3
        until(lambda: deliverer.trouble() is None)
