"""How quickly the guard's outbox is emptied; prints a table, asserts nothing.

    python benchmarks/guard_deliver.py [--objects 300] [--size 530]

One association, CT-like images, every transfer with its check of the digest, its row in the outbox and its audit row,
against the same files sent bare. Peers run on the same machine; compare ratios, never absolute times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from sqlalchemy import func, insert, select

from titer.assess.manifest import hardware
from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.queue import BELL, OBJECT, WAITING, Item, enqueue
from titer.guard.home import Home
from titer.guard.operate.orthanc import Orthanc, dicomweb_plugin
from titer.guard.settings import load
from titer.guard.store.tables import objects, outbox

KIB = 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--size", type=int, default=530, help="of an image, KiB")
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {json.dumps(hardware('cpu'))}, {options.objects} images of {options.size} KiB")
    print("| what | objects/s | wait of one object, p50 / p99 ms | memory growth, MiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = images(folder / "images", options.objects, options.size * KIB)
        for what, line in rows(folder, files):
            print(f"| {what} | {line} |", flush=True)


def rows(folder: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield what was measured, line by line."""
    with storescp(folder / "dcmtk") as port:
        yield "DCMTK storescu -> storescp, bare", bare(port, files)
        yield "guard -> storescp (C-STORE)", guarded(folder / "a", files, "dicom", f"127.0.0.1:{port}")
    server = Orthanc(folder / "orthanc", ae_title="PACS").start()
    try:
        yield "guard -> Orthanc (C-STORE)", guarded(folder / "b", files, "dicom", server.address)
    finally:
        server.stop()
    if dicomweb_plugin() is not None:
        server = Orthanc(folder / "orthanc-web", ae_title="PACS").start()
        try:
            yield "guard -> Orthanc (STOW-RS)", guarded(folder / "c", files, "dicomweb", server.dicomweb)
        finally:
            server.stop()


def images(folder: Path, count: int, size: int) -> list[Path]:
    """Write CT-like images of noise."""
    folder.mkdir()
    side = int((size / 2) ** 0.5)
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        read = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        read.Rows = read.Columns = side
        read.PixelData = rng.integers(0, 4096, (side, side), dtype=np.int16).tobytes()
        read.SOPInstanceUID = read.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        read.save_as(folder / f"{number}.dcm")
        made.append(folder / f"{number}.dcm")
    return made


def bare(port: int, files: list[Path]) -> str:
    """Return what DCMTK needs for the same files, without checks, outbox and audit."""
    program = shutil.which("storescu") or "storescu"
    start = time.perf_counter()
    subprocess.run(
        [program, "-aec", "PACS", "127.0.0.1", str(port), *map(str, files)],
        check=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return f"{len(files) / (time.perf_counter() - start):.0f} | - | -"


def guarded(folder: Path, files: list[Path], kind: str, address: str) -> str:
    """Return objects per second from a full outbox, and how long one object waits in an empty one."""
    context = guard(folder, kind, address)
    store(context, files)
    process = psutil.Process()
    before = process.memory_info().rss
    deliverer = Deliverer(context)
    start = time.perf_counter()
    deliverer.start()
    until(lambda: waiting(context) == 0)
    rate = len(files) / (time.perf_counter() - start)
    waits = sorted(one_by_one(context, files[:50]))
    grown = (process.memory_info().rss - before) / KIB**2
    deliverer.stop()
    context.close()
    p50, p99 = (1000 * waits[min(int(share * len(waits)), len(waits) - 1)] for share in (0.5, 0.99))
    return f"{rate:.0f} | {p50:.0f} / {p99:.0f} | {grown:.0f}"


def guard(folder: Path, kind: str, address: str) -> Context:
    """Make a guard with one destination."""
    home = Home(folder)
    keys.make(home.keys)
    home.settings.write_text(
        f'[[destinations]]\nname = "pacs"\nkind = "{kind}"\naddress = "{address}"\nae_title = "PACS"\n'
    )
    return opened(home, load(home))


def store(context: Context, files: list[Path]) -> None:
    """Queue files as if they had come in."""
    at = context.clock()
    for path in files:
        read = pydicom.dcmread(path, stop_before_pixels=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        row = {
            "sop_instance_uid": read.SOPInstanceUID, "sop_class_uid": read.SOPClassUID,
            "study_instance_uid": read.StudyInstanceUID, "series_instance_uid": read.SeriesInstanceUID,
            "transfer_syntax_uid": read.file_meta.TransferSyntaxUID, "digest": digest, "modality": "CT",
            "size": path.stat().st_size, "path": str(path), "route": "all", "calling_ae": "CT1", "peer": "127.0.0.1",
            "received_at": at, "state": "judged",
        }  # fmt: skip
        item = Item(destination="pacs", kind=OBJECT, subject=read.SOPInstanceUID, digest=digest, path=str(path))
        context.journal.submit(lambda c, row=row: c.execute(insert(objects).values(row)))  # type: ignore[misc]
        context.journal.submit(lambda c, item=item: enqueue(c, item, at))  # type: ignore[misc]
    context.journal.write(lambda _: None)


def one_by_one(context: Context, files: list[Path]) -> Iterator[float]:
    """Yield how long each file waits, from the commit that queued it to the row that says it was delivered."""
    for path in files:
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        start = time.perf_counter()
        again = outbox.update().where(outbox.c.subject == uid).values(state=WAITING, due_at=context.clock())
        context.journal.write(lambda c, again=again: c.execute(again))  # type: ignore[misc]
        context.bell.ring(BELL)
        until(lambda: waiting(context) == 0)
        yield time.perf_counter() - start


def waiting(context: Context) -> int:
    """Return how many items wait."""
    with context.engine.connect() as connection:
        left = select(func.count()).select_from(outbox).where(outbox.c.state == WAITING)
        return int(connection.execute(left).scalar_one())


def until(done: Callable[[], bool], seconds: float = 600.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.002)


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """Run DCMTK's storage server, which throws away what it gets."""
    folder.mkdir()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    program = shutil.which("storescp") or "storescp"
    environment = {**os.environ, "TCP_NODELAY": "1"}
    process = subprocess.Popen([program, "--ignore", "-aet", "PACS", str(port)], env=environment)
    try:
        time.sleep(1.0)
        yield port
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
