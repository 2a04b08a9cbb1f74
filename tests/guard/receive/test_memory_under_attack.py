"""The memory of a guard, measured from outside, under the attacks that made another receiver grow (G6)."""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from dicom_peers import Raw, body, pdv, slice_of, store_request, unit

from titer.guard.home import Home

MOST = 64 << 20
VICTIM = Path(__file__).with_name("dicom_victim.py")


@pytest.fixture
def child(home: Home) -> Iterator[tuple[int, psutil.Process]]:
    """A guard in a process of its own, warmed up: its port, and the process."""
    home.settings.write_text('[spool]\nfree_mib = 1\n[[routes]]\nname = "all"\n')
    command = [sys.executable, str(VICTIM), str(home.root), "none", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for number in range(3):
            _good(port, number)
        yield port, psutil.Process(process.pid)
        process.terminate()


def _good(port: int, number: int) -> float:
    """Send one object as a good peer; returns how long it waited."""
    one = slice_of(number, side=512)
    content = body(one)
    began = time.monotonic()
    with Raw(port, calling="GOOD") as peer:
        assert peer.associate() == 2
        assert peer.store(str(one.SOPInstanceUID), content)[0] == 0
    return time.monotonic() - began


def _claims(port: int, stack: contextlib.ExitStack) -> None:
    for _ in range(20):
        peer = stack.enter_context(Raw(port))
        with contextlib.suppress(OSError):
            peer.send(struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(1 << 20))


def _idle(port: int, stack: contextlib.ExitStack) -> None:
    for _ in range(300):
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))


def _half_requests(port: int, stack: contextlib.ExitStack) -> None:
    for _ in range(250):
        peer = stack.enter_context(Raw(port))
        with contextlib.suppress(OSError):
            peer.send(struct.pack(">BxI", 1, 65_000) + bytes(64_000))


def _endless(port: int, stack: contextlib.ExitStack) -> None:
    piece = unit(4, pdv(1, 0, bytes(130_000)))

    def flood(peer: Raw) -> None:
        with contextlib.suppress(OSError):
            peer.send(unit(4, pdv(1, 3, store_request("1.2.3"))))
            for _ in range(100):
                peer.send(piece)

    peers = [stack.enter_context(Raw(port, calling=f"EVIL{number % 4}")) for number in range(20)]
    assert all(peer.associate() == 2 for peer in peers)
    threads = [threading.Thread(target=flood, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("attack", [_claims, _idle, _half_requests, _endless])
def test_g6_memory_grows_by_less_than_64_mb(child, attack: Callable) -> None:
    port, process = child
    before = process.memory_info().rss
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, process.memory_info().rss)
            time.sleep(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with contextlib.ExitStack() as stack:
            attack(port, stack)
            assert _good(port, 99) < 10  # milliseconds on a machine at rest; who is kept out waits for request_seconds
    finally:
        ended.set()
        watching.join()
    assert most - before < MOST, f"{(most - before) / 1e6:.0f} MB"
