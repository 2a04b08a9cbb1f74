"""Guards with destinations, real peers to deliver to, and faulty ones."""

import hashlib
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
from sqlalchemy import insert, select

from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.queue import BELL, OBJECT, Item, enqueue
from titer.guard.home import Home
from titer.guard.operate.orthanc import Orthanc
from titer.guard.settings import load
from titer.guard.store.tables import audit, findings, objects, outbox, series, verdicts

CT = Path(get_testdata_file("CT_small.dcm"))
MODEL, BUNDLE = "b" * 64, "chest-1"
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


@dataclass
class Guard:
    """A guard of which only the delivery runs."""

    context: Context
    deliverer: Deliverer | None = None

    def start(self) -> Deliverer:
        self.deliverer = Deliverer(self.context)
        self.deliverer.start()
        return self.deliverer

    def stop(self) -> None:
        if self.deliverer is not None:
            self.deliverer.stop()
            self.deliverer = None

    def receive(self, content: bytes, *destinations: str, state: str = "checked") -> str:
        """Store an object as if it had come in and been checked, and queue it; returns its SOP instance UID."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.context.home.spool / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        read = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        at = self.context.clock()

        def step(connection: Any) -> None:
            connection.execute(
                insert(objects).values(
                    sop_instance_uid=read.SOPInstanceUID,
                    sop_class_uid=read.SOPClassUID,
                    study_instance_uid=read.StudyInstanceUID,
                    series_instance_uid=read.SeriesInstanceUID,
                    transfer_syntax_uid=read.file_meta.TransferSyntaxUID,
                    digest=digest,
                    modality=read.get("Modality", "OT"),
                    size=len(content),
                    path=str(path),
                    route="all",
                    calling_ae="CT1",
                    peer="127.0.0.1",
                    received_at=at,
                    state=state,
                )
            )
            known = select(series.c.objects).where(series.c.series_instance_uid == read.SeriesInstanceUID)
            if connection.execute(known).first() is None:
                connection.execute(
                    insert(series).values(
                        series_instance_uid=read.SeriesInstanceUID,
                        study_instance_uid=read.StudyInstanceUID,
                        route="all",
                        modality="CT",
                        objects=1,
                        first_at=at,
                        last_at=at,
                        state="open",
                    )
                )
            for name in destinations:
                item = Item(
                    destination=name, kind=OBJECT, subject=read.SOPInstanceUID, digest=digest, path=str(path)
                )
                assert enqueue(connection, item, at)

        self.context.journal.write(step)
        self.context.bell.ring(BELL)
        return str(read.SOPInstanceUID)

    def judge(self, subject: str, **values: Any) -> int:
        """Write a verdict with one finding; returns its id."""
        row = {
            "subject_kind": "series",
            "subject": subject,
            "revision": 0,
            "route": "all",
            "input_digest": "a" * 64,
            "model_digest": MODEL,
            "bundle_version": BUNDLE,
            "outcome": "PASS",
            "scores": {"shift": {"score": 0.25, "threshold": 0.75}},
            "result": {"class": "pneumonia", "probability": 0.93},
            "state": "released",
            "urgency": 0,
            "created_at": 1_700_000_000.0,
        } | values

        def step(connection: Any) -> int:
            made = connection.execute(insert(verdicts).values(row)).inserted_primary_key[0]
            connection.execute(
                insert(findings).values(
                    verdict_id=made,
                    rule="pixel-spacing",
                    outcome=row["outcome"],
                    reason="the pixel spacing is not that of the series",
                    evidence={"PatientName": "must not leave"},
                    threats=[],
                    at=0.0,
                )
            )
            return int(made)

        return self.context.journal.write(step)

    def run(self, act: Callable[..., Any], *given: Any) -> Any:
        """Call `act(context, connection, ...)` in a transaction, and ring."""
        value = self.context.journal.write(lambda connection: act(self.context, connection, *given))
        self.context.bell.ring(BELL)
        return value

    def items(self, **wanted: Any) -> list[Any]:
        query = select(outbox).order_by(outbox.c.id)
        for name, value in wanted.items():
            query = query.where(outbox.c[name] == value)
        with self.context.engine.connect() as connection:
            return list(connection.execute(query))

    def settled(self, state: str = "delivered", count: int = 1, seconds: float = 30.0, **wanted: Any) -> list[Any]:
        """Wait until `count` items are in a state."""
        until(lambda: len(self.items(state=state, **wanted)) >= count, seconds)
        return self.items(state=state, **wanted)

    def audited(self, word: str) -> list[str]:
        """Return the audit rows that hold a word."""
        with self.context.engine.connect() as connection:
            return [text for text in connection.execute(select(audit.c.event)).scalars() if word in text]


@pytest.fixture
def make_guard(home: Home) -> Iterator[Callable[..., Guard]]:
    """Open a guard with destinations: its route sends results to all of them."""
    made: list[Guard] = []

    def make(*destinations: str, clock: Callable[[], float] = time.time) -> Guard:
        names = [line.split('"')[1] for text in destinations for line in text.splitlines() if line.startswith("name")]
        home.settings.write_text(f'[[routes]]\nname = "all"\nmodel = "chest"\nresults = {names}\n' + "".join(destinations))
        (home.keys / "hook.key").write_text("hook secret\n")
        guard = Guard(opened(home, load(home), clock))
        made.append(guard)
        return guard

    yield make
    for guard in made:
        guard.stop()
        guard.context.close()


@pytest.fixture
def ct() -> bytes:
    return CT.read_bytes()


def copies(count: int) -> list[bytes]:
    """Return CT images of one series, each with a UID of its own."""
    made = []
    for number in range(count):
        read = pydicom.dcmread(CT)
        read.SOPInstanceUID = read.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        read.InstanceNumber = number + 1
        stream = BytesIO()
        read.save_as(stream)
        made.append(stream.getvalue())
    return made


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A real Orthanc that everybody on this machine may send to."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    server = Orthanc(tmp_path_factory.mktemp("orthanc"), ae_title="PACS").start()
    yield server
    server.stop()


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


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()

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


