"""Guards with destinations, real peers to deliver to, and faulty ones."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
import pytest
from sqlalchemy import insert, select
from tests.guard.deliver.peers import BUNDLE, CT, MODEL, Web, serving, until

from titer.guard.context import Context, opened
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.queue import BELL, OBJECT, Item, enqueue
from titer.guard.home import Home
from titer.guard.operate.orthanc import Orthanc
from titer.guard.settings import load
from titer.guard.store.tables import audit, findings, objects, outbox, series, verdicts


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

    def receive(self, content: bytes, *destinations: str, state: str = "judged") -> str:
        """Store an object as if it had come in and been judged, and queue it; returns its SOP instance UID."""
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
                item = Item(destination=name, kind=OBJECT, subject=read.SOPInstanceUID, digest=digest, path=str(path))
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
        home.settings.write_text(
            f'[[routes]]\nname = "all"\nmodel = "chest"\nresults = {names}\n' + "".join(destinations)
        )
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


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A real Orthanc that everybody on this machine may send to."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    server = Orthanc(tmp_path_factory.mktemp("orthanc"), ae_title="PACS").start()
    yield server
    server.stop()


@pytest.fixture
def web() -> Iterator[Web]:
    """A small web server on loopback."""
    with serving(Web()) as state:
        yield state
