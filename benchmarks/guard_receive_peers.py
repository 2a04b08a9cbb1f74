"""What benchmarks/guard_receive.py measures with: slices that are new each time, a sender, the guard, Orthanc."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "guard" / "receive"))

from dicom_peers import Raw, body, slice_of  # noqa: E402

SETTINGS = '[dicom]\nassociations = 32\n[[routes]]\nname = "all"\n'
_PLACE = b"1.2.826.0.1.3680043.8.498.777777777777"


def serve(folder: Path) -> None:
    """Be the guard: a process of its own, until it is told to stop."""
    from titer.guard import keys
    from titer.guard.context import opened
    from titer.guard.home import Home
    from titer.guard.receive.component import Receiver
    from titer.guard.settings import load

    home = Home(folder)
    keys.make(home.keys)
    home.settings.write_text(SETTINGS)
    context = opened(home, load(home))
    receiver = Receiver(context, port=0)
    receiver.start()
    print(receiver.port, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    receiver.stop()
    context.close()


class Slices:
    """Slices of one size whose UIDs differ, made by putting a number into a template."""

    def __init__(self) -> None:
        """Make the template."""
        made = slice_of(1, side=512)
        made.SOPInstanceUID = _PLACE.decode()
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.add_new(0x00204000, "LT", "x" * 5600)  # a header of a real slice's length
        self._made, self._body = made, body(made)
        self._next = int(time.time() * 1000) * 1000

    def one(self) -> tuple[str, bytes]:
        """Return a new UID, and the data set with it."""
        self._next += 1
        uid = f"{_PLACE.decode()[:22]}{self._next:016d}"
        return uid, self._body.replace(_PLACE, uid.encode())

    def file(self, folder: Path) -> Path:
        """Write a new slice as a file."""
        uid, _content = self.one()
        self._made.SOPInstanceUID = self._made.file_meta.MediaStorageSOPInstanceUID = uid
        path = folder / f"{uid}.dcm"
        self._made.save_as(path, enforce_file_format=True)
        return path


def send(port: int, called: str, associations: int, slices: int) -> dict[str, object]:
    """Send slices over bare sockets; returns the time it took and every latency, in seconds."""
    source = Slices()
    shares = [[source.one() for _ in range(slices // associations)] for _ in range(associations)]
    latencies: list[float] = []
    stored: list[int] = []
    ready = threading.Barrier(associations + 1)

    def work(number: int) -> None:
        with Raw(port, calling=f"BENCH{number}", called=called) as peer:
            assert peer.associate() == 2, "no association"
            ready.wait()
            for message, (uid, content) in enumerate(shares[number]):
                began = time.perf_counter()
                status, comment = peer.store(uid, content, message % 60000 + 1)
                latencies.append(time.perf_counter() - began)
                assert status == 0, comment
                stored.append(message)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(associations)]
    for one in threads:
        one.start()
    ready.wait()
    began = time.perf_counter()
    for one in threads:
        one.join()
    seconds = time.perf_counter() - began
    assert len(stored) == sum(map(len, shares)), "not every slice was stored"
    return {"seconds": seconds, "latencies": latencies}


@contextlib.contextmanager
def guard(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a guard; gives its port and process id."""
    folder.mkdir(parents=True)
    command = [sys.executable, str(HERE / "guard_receive.py"), "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    """Run Orthanc with its package's defaults, but for ports and folder; gives its port and process id."""
    folder.mkdir(parents=True)
    dicom, web = _free_port(), _free_port()
    settings = json.loads("{}")
    settings.update(DicomPort=dicom, HttpPort=web, StorageDirectory=str(folder), IndexDirectory=str(folder))
    settings.update(DicomAet="ORTHANC", Plugins=[], DicomAlwaysAllowEcho=True, DicomAlwaysAllowStore=True)
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    log = (folder / "log.txt").open("w")
    with log, subprocess.Popen([_orthanc(), str(path)], stdout=log, stderr=log) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", dicom), timeout=1):
                break
            time.sleep(0.1)
        yield dicom, process.pid
        process.terminate()
        process.wait(30)


def _orthanc() -> str:
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    assert found, "Orthanc is not installed"
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])
