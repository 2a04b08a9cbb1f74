"""Peers that are down, refuse, hang, answer badly, break off or are slow: nothing is lost, and nobody else waits."""

import socket
import struct
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
from tests.guard.deliver.peers import (
    SERIES,
    Faulty,
    copies,
    data_bytes,
    destination,
    faulty,
    free_port,
    storescp,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""pynetdicom drops the socket of a refused connection without closing it; the interpreter closes it at once."""

PATIENT = "retry_seconds = 0.05\nlongest_pause_seconds = 0.2\ntimeout_seconds = 20.0"


@contextmanager
def listener(serve, receive_buffer=None):
    """Call `serve(connection)` in a thread for every TCP connection."""
    server = socket.create_server(("127.0.0.1", 0))
    if receive_buffer:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    taken = []

    def run():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            taken.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in taken:
            connection.close()


def test_what_a_pacs_missed_while_it_was_down_is_there_after_it_is_back(make_guard, tmp_path):
    port = free_port()
    guard = make_guard(destination("pacs", "dicom", f"127.0.0.1:{port}"))
    guard.start()
    sent = copies(8)
    for content in sent:
        guard.receive(content, "pacs")
    until(lambda: guard.deliverer.breakers()["pacs"] == "open")
    assert all(item.state == "waiting" for item in guard.items())
    with storescp(tmp_path / "in", port):
        guard.settled(count=8)
        guard.stop()
        written = {data_bytes(path.read_bytes()) for path in (tmp_path / "in").iterdir()}
    assert written == {data_bytes(content) for content in sent}
    assert any('"outcome":"4"' in row for row in guard.audited('"110104"'))


def test_an_association_that_is_rejected_is_tried_again(make_guard, ct):
    port = free_port()
    with faulty(Faulty(), port, require="OTHER"):
        guard = make_guard(destination("pacs", "dicom", f"127.0.0.1:{port}"))
        guard.start()
        guard.receive(ct, "pacs")
        until(lambda: "rejected the association" in (guard.items()[0].last_error or ""))
        assert guard.items()[0].state == "waiting"
    with faulty(Faulty(), port) as peer:
        guard.settled()
        assert [data for _, data in peer.stored] == [data_bytes(ct)]


def test_a_peer_that_takes_the_connection_and_says_nothing_is_given_up_in_time(make_guard, ct):
    with listener(lambda connection: connection.recv(1)) as silent:
        guard = make_guard(destination("pacs", "dicom", silent))
        guard.start()
        guard.receive(ct, "pacs")
        until(lambda: guard.items()[0].attempts >= 2)
        assert guard.items()[0].state == "waiting"
        assert "no association" in guard.items()[0].last_error


def test_a_peer_that_never_answers_an_object_is_given_up_in_time_and_gets_it_when_it_answers(make_guard, ct):
    hangs = threading.Event()
    peer = Faulty()

    def answer(_event):
        if not hangs.is_set():
            hangs.set()
            time.sleep(2.0)
            return 0xC000
        return 0x0000

    peer.answer = answer
    with faulty(peer):
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.start()
        guard.receive(ct, "pacs")
        (item,) = guard.settled()
        assert item.attempts == 2
        assert [data for _, data in peer.stored] == [data_bytes(ct)]


def test_out_of_resources_is_tried_again_until_there_are_some(make_guard, ct):
    peer = Faulty()
    answers = [0xA700, 0xA702, 0x0000]
    peer.answer = lambda _event: answers.pop(0)
    with faulty(peer):
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.start()
        guard.receive(ct, "pacs")
        (item,) = guard.settled()
        assert (item.attempts, answers) == (3, [])


def test_coerced_elements_are_a_delivery_with_a_note(make_guard, ct):
    with faulty(Faulty(answer=lambda _event: 0xB000)) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.start()
        guard.receive(ct, "pacs")
        (item,) = guard.settled()
        assert item.last_error == "status 0xB000: coerced data elements"
        assert "0xB000" in guard.audited('"110104"')[0]


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122])
def test_an_object_that_the_peer_refuses_is_dead_after_three_tries_and_holds_up_no_other(make_guard, ct, status):
    good = copies(1)[0]
    peer = Faulty()
    with faulty(peer):
        guard = make_guard(destination("pacs", "dicom", peer.address))
        bad = guard.receive(ct, "pacs")
        peer.answer = lambda event: status if event.request.AffectedSOPInstanceUID == bad else 0x0000
        guard.receive(good, "pacs")
        guard.start()
        (dead,) = guard.settled("dead")
        guard.settled()
        assert dead.last_error == f"given up after 3 tries: status 0x{status:04X}"
        assert len(guard.audited('"110100"')) == 1
        assert [data for _, data in peer.stored] == [data_bytes(good)]


def test_a_peer_that_resets_in_the_middle_of_an_object_gets_it_whole_the_next_time(make_guard):
    content = copies(1)[0]
    peer = Faulty()
    resets = []
    with faulty(peer) as real:

        def serve(connection):
            """Pass everything on, but the first time break off after 8 kB."""
            first = not resets
            resets.append(1)
            host, port = real.address.split(":")
            with connection, socket.create_connection((host, int(port))) as onward:
                back = threading.Thread(target=_pump, args=(onward, connection, None), daemon=True)
                back.start()
                _pump(connection, onward, 8192 if first else None)
                onward.shutdown(socket.SHUT_RDWR)
                if first:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with listener(serve) as address:
            guard = make_guard(destination("pacs", "dicom", address))
            guard.start()
            guard.receive(content, "pacs")
            (item,) = guard.settled()
            assert item.attempts >= 2
            assert [data for _, data in peer.stored] == [data_bytes(content)]


def _pump(source, sink, limit):
    passed = 0
    try:
        while (limit is None or passed < limit) and (block := source.recv(1024)):
            sink.sendall(block)
            passed += len(block)
    except OSError:
        return


def test_a_peer_that_stops_reading_is_given_up_in_time(make_guard, ct):
    """Its window is full: a write waits, and must not wait for ever."""
    stops = threading.Event()

    def serve(connection):
        with connection, socket.create_connection(real) as onward:
            threading.Thread(target=_pump, args=(onward, connection, None), daemon=True).start()
            _pump(connection, onward, 4096)
            stops.wait(20)
            onward.shutdown(socket.SHUT_RDWR)

    with faulty(Faulty()) as peer:
        host, port = peer.address.split(":")
        real = (host, int(port))
        with listener(serve) as address:
            guard = make_guard(destination("pacs", "dicom", address))
            guard.start()
            guard.receive(big(ct, 20_000_000), "pacs")
            until(lambda: guard.items()[0].attempts >= 1, 15)
            assert guard.items()[0].state == "waiting"
            guard.stop()
            stops.set()


def big(ct, size):
    """Return a CT image with a long private element at its end."""
    return ct + b"\0\0\x10\x40UT\0\0" + struct.pack("<I", size) + b" " * size


def test_an_object_that_takes_longer_than_the_time_out_arrives_as_long_as_it_moves(make_guard, ct):
    content = big(ct, 12_000_000)
    with faulty(Faulty(), max_pdu=131072) as peer:
        host, port = peer.address.split(":")

        def serve(connection):
            with connection, socket.create_connection((host, int(port))) as onward:
                threading.Thread(target=_pump, args=(onward, connection, None), daemon=True).start()
                while block := connection.recv(65536):
                    onward.sendall(block)
                    time.sleep(len(block) / 4_000_000)
                onward.shutdown(socket.SHUT_RDWR)

        with listener(serve, receive_buffer=65536) as address:
            guard = make_guard(destination("pacs", "dicom", address))
            guard.start()
            guard.receive(content, "pacs")
            (item,) = guard.settled()
            assert item.attempts == 1
            assert [data for _, data in peer.stored] == [data_bytes(content)]
            guard.stop()


def test_an_object_of_a_hundred_megabytes_is_never_whole_in_memory(make_guard, ct, tmp_path):
    port = free_port()
    with storescp(tmp_path / "in", port):
        guard = make_guard(destination("pacs", "dicom", f"127.0.0.1:{port}", "timeout_seconds = 20"))
        guard.receive(big(ct, 100_000_000), "pacs")
        process, before, most = psutil.Process(), psutil.Process().memory_info().rss, 0
        guard.start()
        while guard.items(state="waiting"):
            most = max(most, process.memory_info().rss)
            time.sleep(0.01)
        guard.settled()
        assert most - before < 40 << 20
        guard.stop()


def test_a_slow_peer_holds_up_no_other_destination(make_guard):
    def slowly(_event):
        time.sleep(0.5)
        return 0x0000

    with faulty(Faulty(answer=slowly)) as slow, faulty(Faulty()) as quick:
        guard = make_guard(
            destination("slow", "dicom", slow.address, PATIENT), destination("quick", "dicom", quick.address)
        )
        guard.start()
        for content in copies(6):
            guard.receive(content, "slow", "quick")
        guard.settled(count=6, destination="quick")
        assert guard.items(state="waiting", destination="slow")
        guard.settled(count=6, destination="slow")


def test_a_fhir_server_that_is_dead_does_not_hold_up_dicom(make_guard, ct):
    from titer.guard.deliver.results import release

    with listener(lambda connection: connection.recv(1)) as silent, faulty(Faulty()) as peer:
        guard = make_guard(
            destination("records", "fhir", f"http://{silent}/fhir"), destination("pacs", "dicom", peer.address)
        )
        guard.start()
        guard.receive(ct, "pacs")
        guard.run(release, guard.judge(SERIES))
        guard.settled(count=2, destination="pacs")
        assert {item.state for item in guard.items(destination="records")} == {"waiting"}
