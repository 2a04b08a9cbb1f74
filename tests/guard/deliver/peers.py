"""Peers to deliver to: DCMTK's, faulty ones, a small web server; and what is sent to them."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE, StoragePresentationContexts, evt

CT = Path(get_testdata_file("CT_small.dcm"))
MODEL, BUNDLE = "b" * 64, "chest-1"
SERIES = "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
"""Of the CT image."""
QUICK = "retry_seconds = 0.05\nlongest_pause_seconds = 0.2\ntimeout_seconds = 1.0"


def until(done: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def destination(name: str, kind: str, address: str, more: str = QUICK) -> str:
    aet = '\nae_title = "PACS"' if kind == "dicom" else ""
    secret = '\nsecret_file = "keys/hook.key"' if kind == "webhook" else ""
    return f'[[destinations]]\nname = "{name}"\nkind = "{kind}"\naddress = "{address}"{aet}{secret}\n{more}\n'


def data_bytes(file: bytes) -> bytes:
    """Return the bytes of a DICOM file's data set, after the file meta information."""
    stream = BytesIO(file)
    pydicom.filereader.read_preamble(stream, False)
    pydicom.filereader._read_file_meta_info(stream)
    return file[stream.tell() :]


def copies(count: int, series: str = SERIES) -> list[bytes]:
    """Return CT images of one series, each with a UID of its own."""
    made = []
    for number in range(count):
        read = pydicom.dcmread(CT)
        read.SOPInstanceUID = read.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        read.SeriesInstanceUID = series
        read.InstanceNumber = number + 1
        stream = BytesIO()
        read.save_as(stream)
        made.append(stream.getvalue())
    return made


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[None]:
    """DCMTK's storage server: it writes data sets exactly as they come (+B)."""
    folder.mkdir(exist_ok=True)
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("DCMTK is not installed (apt-get install dcmtk)")
    command = [program, "+B", "+xa", "-aet", "PACS", "-od", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Faulty:
    """A peer of pynetdicom's that answers as it is told."""

    answer: Callable[[Any], Any] = lambda _: 0x0000
    stored: list[tuple[str, bytes]] = field(default_factory=list)
    associations: int = 0
    address: str = ""

    def on_store(self, event: Any) -> Any:
        status = self.answer(event)
        if status in (0x0000, 0xB000):
            self.stored.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        return status

    def on_open(self, _event: Any) -> None:
        self.associations += 1


@contextmanager
def faulty(peer: Faulty, port: int = 0, *, require: str = "PACS", max_pdu: int = 16382) -> Iterator[Faulty]:
    ae = AE(ae_title="PACS")
    ae.supported_contexts = StoragePresentationContexts
    for context in ae.supported_contexts:
        context.transfer_syntax = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"]
    ae.require_called_aet = True
    ae.ae_title = require
    ae.maximum_pdu_size = max_pdu
    handlers = [(evt.EVT_C_STORE, peer.on_store), (evt.EVT_CONN_OPEN, peer.on_open)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    peer.address = f"127.0.0.1:{server.socket.getsockname()[1]}"
    try:
        yield peer
    finally:
        server.shutdown()


@dataclass
class Web:
    """A small HTTP server that keeps what it is sent, by address, as a FHIR server keeps resources."""

    address: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    answers: list[int] = field(default_factory=list)
    refuses_own_ids: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def status(self, method: str, path: str, body: bytes) -> int:
        if self.answers:
            return self.answers.pop(0)
        if self.refuses_own_ids and method == "PUT" and "?" not in path:
            return 405
        known = path in self.kept
        self.kept[path] = body
        return 200 if known else 201


@contextmanager
def serving(state: Web) -> Iterator[Web]:
    """Serve on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _take(self) -> None:
            body = self._body()
            state.requests.append((self.command, self.path, dict(self.headers), body))
            self.send_response(state.status(self.command, self.path, body))
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_PUT = do_POST = _take  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}/fhir"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
