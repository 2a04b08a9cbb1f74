"""Hostile and broken peers end their own association, cost little, and keep nobody else out (G6)."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from dicom_peers import Raw, associate_request, body, echoscu, element, pdv, slice_of, store_request, store_units, unit

from titer.guard.store.tables import audit, objects

ABORTED, CLOSED = 7, 0


def _memory() -> int:
    return psutil.Process(os.getpid()).memory_info().rss


def _wait(until: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.02)
    assert until()


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: guard\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        struct.pack(">BxI", 1, 0xFFFFFFFF),
        struct.pack(">BxI", 4, 0xFFFFFFFF),
        struct.pack(">BxI", 1, 70_000),
        unit(1, b""),
        unit(1, bytes(68)),
        unit(4, pdv(1, 3, store_request("1.2"))),
        unit(5, bytes(4)),
        unit(9, bytes(4)),
        unit(1, associate_request()[6:] + b"\x50\x00\xff\xff"),
        unit(1, associate_request()[6:].replace(b"1.2.840.10008.5.1.4.1.1.2", b"../../../../../etc/passwd")),
    ],
)
def test_what_is_no_association_request_is_aborted_at_once(guard, first: bytes) -> None:
    with Raw(guard.port) as peer:
        began = time.monotonic()
        peer.send(first)
        assert peer.receive()[0] in (ABORTED, CLOSED)
        assert time.monotonic() - began < guard.context.settings.dicom.request_seconds
    assert echoscu(guard.port).returncode == 0
    assert "protocol violation" in guard.rows(audit)[0].event


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack(">BxI", 4, 0xFFFFFFFF),
        struct.pack(">BxI", 4, 131_073),
        unit(4, b""[:0] + struct.pack(">IBB", 0xFFFFFFF0, 1, 3)),
        unit(4, struct.pack(">IBB", 1, 1, 3)),
        unit(4, pdv(3, 3, store_request("1.2"))),
        unit(4, pdv(2, 3, store_request("1.2"))),
        unit(4, pdv(1, 2, b"data before a command")),
        unit(4, pdv(1, 3, b"")),
        unit(4, pdv(1, 3, bytes(40))),
        unit(4, pdv(1, 3, store_request("1.2")[:-3])),
        unit(4, pdv(1, 3, store_request("../../x"))),
        unit(4, pdv(1, 3, store_request("1.2")) + pdv(1, 3, store_request("1.2"))),
        unit(4, pdv(1, 1, b"")),
        unit(4, pdv(1, 3, store_request("1.2")) + pdv(1, 0, b"")),
        unit(4, pdv(1, 1, bytes(16_000)) + pdv(1, 1, bytes(16_000))),
        unit(1, associate_request()[6:]),
        unit(2, bytes(4)),
        unit(8, bytes(4)),
    ],
)
def test_a_broken_unit_inside_an_association_aborts_it(guard, wrong: bytes) -> None:
    with Raw(guard.port) as peer:
        assert peer.associate() == 2
        peer.send(wrong)
        assert peer.receive()[0] == ABORTED
    assert guard.rows(objects) == []
    assert guard.files() == []


def test_g6_a_claim_of_4_gib_allocates_nothing(guard) -> None:
    echoscu(guard.port)
    before = _memory()
    for _ in range(20):
        with Raw(guard.port) as peer:
            with contextlib.suppress(OSError):
                peer.send(struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(1 << 20))
            assert peer.receive()[0] in (ABORTED, CLOSED)
    assert _memory() - before < 16 << 20


def test_g6_300_idle_sockets_keep_no_good_peer_out(guard) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", guard.port))) for _ in range(300)]
        one = slice_of(1)
        began = time.monotonic()
        with Raw(guard.port) as peer:
            assert peer.associate() == 2
            assert peer.store(one.SOPInstanceUID, body(one))[0] == 0
        assert time.monotonic() - began < 5  # it took milliseconds; a peer kept out waits for request_seconds
        assert len(idle) == 300


def test_idle_sockets_and_idle_associations_are_closed_in_time(start: Callable) -> None:
    guard = start("[dicom]\nrequest_seconds = 0.2\nidle_seconds = 0.3\n")
    with Raw(guard.port) as silent, Raw(guard.port) as idle, Raw(guard.port) as slow:
        assert idle.associate() == 2
        slow.send(associate_request()[:20])
        for peer in (silent, idle, slow):
            assert peer.receive()[0] in (ABORTED, CLOSED)


def test_g6_endless_fragments_end_at_the_largest_object(start: Callable) -> None:
    guard = start("[dicom]\nmax_object_mib = 4\n")
    before = _memory()
    with Raw(guard.port) as peer:
        peer.associate()
        peer.send(unit(4, pdv(1, 3, store_request("1.2.3"))))
        piece = unit(4, pdv(1, 0, bytes(130_000)))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                peer.send(piece)
                sent += len(piece)
        assert sent < 32 << 20
    assert _memory() - before < 64 << 20
    _wait(lambda: guard.files() == [])
    assert guard.rows(objects) == []
    assert "longer than is taken" in guard.rows(audit)[0].event


def test_fragments_of_one_byte_are_gathered(guard) -> None:
    one = slice_of(1, side=8)
    content = body(one)
    values = [pdv(1, 2 if at == len(content) - 1 else 0, content[at : at + 1]) for at in range(len(content))]
    with Raw(guard.port) as peer:
        peer.associate()
        peer.send(unit(4, pdv(1, 1, store_request(one.SOPInstanceUID)[:9])))
        peer.send(unit(4, pdv(1, 3, store_request(one.SOPInstanceUID)[9:])))
        for at in range(0, len(values), 500):
            peer.send(unit(4, b"".join(values[at : at + 500])))
        assert peer.status() == (0, "")


def test_a_sender_that_aborts_or_vanishes_mid_object_leaves_nothing(guard) -> None:
    one = slice_of(1, side=1024)
    units = store_units(one.SOPInstanceUID, body(one))
    for ending in (unit(7, bytes(4)), b"", b"\x04"):
        with Raw(guard.port) as peer:
            peer.associate()
            peer.send(units[: len(units) * 3 // 4])
            if ending == b"\x04":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.send(units[len(units) * 3 // 4 :][:40] if ending == b"" else ending)
    _wait(lambda: guard.files() == [])
    assert guard.rows(objects) == []
    with Raw(guard.port) as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")


def test_a_release_in_the_middle_of_an_object_leaves_nothing(guard) -> None:
    with Raw(guard.port) as peer:
        peer.associate()
        peer.send(unit(4, pdv(1, 3, store_request("1.2.3"))) + unit(4, pdv(1, 0, bytes(500))))
        assert peer.release() in (6, ABORTED, CLOSED)
    _wait(lambda: guard.files() == [])


def test_associations_are_capped_in_all_and_per_peer(start: Callable) -> None:
    guard = start("[dicom]\nassociations = 3\nassociations_per_peer = 2\n")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Raw(guard.port, calling=name)) for name in ("A", "A", "A", "B", "C")]
        assert [peer.associate() for peer in peers] == [2, 2, 3, 2, 3]
        peers[0].release()
        late = stack.enter_context(Raw(guard.port, calling="C"))
        assert late.associate() == 2


def test_garbage_of_300_connections_at_once_ends_nothing(guard) -> None:
    def one(number: int) -> None:
        with contextlib.suppress(OSError), Raw(guard.port) as peer:
            peer.send(os.urandom(number * 7))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(300)))
    assert echoscu(guard.port).returncode == 0
    assert guard.receiver.trouble() is None
    assert len(guard.rows(audit)) < 40, "a flood of alerts is counted, not written"


def test_a_peer_that_does_not_read_its_answers_is_closed(start: Callable) -> None:
    guard = start("[dicom]\nidle_seconds = 0.5\n")
    echo = element(0x0100, b"\x30\0") + element(0x0110, b"\1\0") + element(0x0800, b"\1\1")
    with Raw(guard.port) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(3)
        peer.associate()
        with pytest.raises((ConnectionError, TimeoutError)):
            peer.send(unit(4, pdv(1, 3, echo)) * 500_000)
    _wait(lambda: echoscu(guard.port).returncode == 0)


def test_a_peer_is_held_to_its_rate(start: Callable) -> None:
    guard = start('[dicom]\n[[dicom.peers]]\nae_title = "SLOW"\nobjects_per_second = 5\n')
    began = time.monotonic()
    with Raw(guard.port, calling="SLOW") as peer:
        assert peer.associate() == 2
        for number in range(9):
            one = slice_of(number, side=8)
            assert peer.store(one.SOPInstanceUID, body(one), number)[0] == 0
    assert time.monotonic() - began > 0.5  # five at once, then one each fifth of a second


def test_only_listed_peers_may_send(start: Callable) -> None:
    guard = start(
        '[dicom]\n[[dicom.peers]]\nae_title = "CT1"\n[[dicom.peers]]\nae_title = "MR1"\naddress = "127.0.0.9"\n'
    )
    answers = {}
    for title in ("CT1", "CT2", "MR1"):
        with Raw(guard.port, calling=title) as peer:
            answers[title] = peer.associate()
    assert answers == {"CT1": 2, "CT2": 3, "MR1": 3}
    said = " ".join(row.event for row in guard.rows(audit))
    assert "not on the list" in said
    assert "another address" in said
