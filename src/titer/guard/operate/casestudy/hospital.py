"""The virtual hospital: a guard in a process of its own between DCMTK and Orthanc, and what became of files."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil
from sqlalchemy import func, select

from titer.core.errors import SpecError
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.judge.review import decide
from titer.guard.operate.casestudy.files import Sent
from titer.guard.operate.orthanc import Orthanc, end
from titer.guard.operate.people import add
from titer.guard.operate.setup import init
from titer.guard.operate.studies import send
from titer.guard.settings import load
from titer.guard.store.tables import findings, objects, outbox, verdicts

MODEL = "brain-mri"
READER, SECOND = "case-study-reader", "case-study-second"
QUIET = 0.3
_SETTINGS = """\
# A guard of the case study: {name}
[dicom]
port = {dicom}

[web]
port = {web}

[spool]
free_mib = 64

[[destinations]]
name = "archive"
kind = "dicom"
address = "{archive}"
ae_title = "ORTHANC"

[[routes]]
name = "mri"
modalities = ["MR"]
model = "brain-mri"
images = ["archive"]
results = ["archive"]
layers = [{layers}]
quiet_seconds = {quiet}
budget_ms = 5000
"""
_AT_ONCE = 20
_START_SECONDS, _STOP_SECONDS = 180.0, 60.0
_PATIENCE = 180.0
_LOOK = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the guard decided about one file: the class that its model says, None where it gave no answer.

    `seconds` is the time from the file being durable to its verdict, without the quiet time that the route waits for
    further slices; None where the file itself was blocked.
    """

    verdict: int
    outcome: str
    said: str | None
    rules: tuple[str, ...]
    seconds: float | None


class Guard:
    """A guard that runs while it is entered; made in a new folder, its bundle written by `bundle`."""

    def __init__(
        self, folder: Path, name: str, layers: Sequence[str], archive: Orthanc, bundle: Callable[[Path], None]
    ) -> None:
        """Make it; raises SpecError where the folder is not empty."""
        self.dicom, self.web = _free(2)
        listed = ", ".join(f'"{layer}"' for layer in layers)
        text = _SETTINGS.format(
            name=name, dicom=self.dicom, web=self.web, archive=archive.address, layers=listed, quiet=QUIET
        )  # fmt: skip
        init(folder, account=add, model=lambda _: None, settings=text)
        self.home, self.bundle = Home(folder), Home(folder).models / MODEL
        bundle(self.bundle)
        self._sent = folder / "sent"
        self._process: subprocess.Popen[bytes] | None = None
        self._context: Context | None = None

    def __enter__(self) -> Guard:
        """Start it, and return when it is ready."""
        with (self.home.root / "guard.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "titer.cli.main", "guard", "run", str(self.home.root)], stdout=log, stderr=log
            )
        try:
            self._wait_until_ready()
            self._context = opened(self.home, load(self.home))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it, by its process id."""
        if self._context is not None:
            self._context.close()
        self._stop()

    def send(self, sent: Sequence[Sent]) -> list[Seen]:
        """Send files by storescu, and return what was decided of each, in their order, once all of them are judged.

        Raises:
            SpecError: a file has no verdict in time.
        """
        for start in range(0, len(sent), _AT_ONCE):
            part = sent[start : start + _AT_ONCE]
            self._hand_in(part)
        return self.judged(sent)

    def send_one_by_one(self, sent: Sequence[Sent]) -> list[Seen]:
        """Send each file when the one before it is judged: what a verdict takes while nothing else waits."""
        found = []
        for one in sent:
            self._hand_in([one])
            found += self.judged([one])
        return found

    def judged(self, sent: Sequence[Sent]) -> list[Seen]:
        """Wait for the verdicts of files, and return them in the files' order."""
        until = time.monotonic() + _PATIENCE + len(sent)
        known = -1
        while True:
            now = self._count()
            if now != known:  # reading every verdict is dear: only where there is a new one
                known, found = now, self._verdicts()
                rows = [found.get(one.series) or found.get(one.object_) for one in sent]
                missing = sum(row is None for row in rows)
            if not missing:
                return [row for row in rows if row is not None]
            if time.monotonic() > until:
                raise SpecError(f"the guard judged all but {missing} of {len(sent)} files: see {self.home.root}")
            time.sleep(_LOOK)

    def review(self, seen: Sequence[Seen], truths: Sequence[str]) -> int:
        """Decide about what is held, as a reader does who is always right; returns how many were overrides."""
        overridden = 0
        for one, truth in zip(seen, truths, strict=True):
            if one.outcome == "PASS":
                continue
            action = "accept" if one.said == truth else "override"
            overridden += action == "override"
            label = truth if action == "override" and one.said is not None else None
            decided = decide(self._opened(), one.verdict, READER, "radiologist", action, "case study", label)
            if decided.waits_for_second:
                decide(self._opened(), one.verdict, SECOND, "radiologist", action, "case study", label)
        return overridden

    def drained(self) -> None:
        """Wait until nothing is left to deliver; raises SpecError where something still is after three minutes."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            waiting = select(func.count()).select_from(outbox).where(outbox.c.state == "waiting")
            with self._opened().engine.connect() as connection:
                if not connection.execute(waiting).scalar_one():
                    return
            time.sleep(_LOOK)
        raise SpecError(f"the guard has not delivered everything to the archive: see {self.home.root / 'guard.log'}")

    def memory(self) -> dict[str, float]:
        """Return resident memory in MiB: of the guard's own process and of its workers (shared pages count in both)."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        workers = [one.memory_info().rss for one in process.children(recursive=True)]
        return {"guard": process.memory_info().rss / 2**20, "worker": sum(workers) / 2**20}

    def _opened(self) -> Context:
        assert self._context is not None
        return self._context

    def _hand_in(self, part: Sequence[Sent]) -> None:
        send({one.object_ + ".dcm": one.content for one in part}, self._sent, f"127.0.0.1:{self.dicom}", "TITER")

    def _count(self) -> int:
        with self._opened().engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(verdicts)).scalar_one())

    def _verdicts(self) -> Mapping[str, Seen]:
        """Return the verdict of each series, and of each file that was blocked, by UID; the latest one stands."""
        received = select(objects.c.series_instance_uid, func.max(objects.c.received_at).label("at")).group_by(
            objects.c.series_instance_uid
        )
        with self._opened().engine.connect() as connection:
            came = {row.series_instance_uid: row.at for row in connection.execute(received)}
            rules: dict[int, list[str]] = {}
            for row in connection.execute(select(findings).where(findings.c.outcome != "PASS")):
                rules.setdefault(row.verdict_id, []).append(_rule(row))
            rows = connection.execute(select(verdicts).order_by(verdicts.c.id)).all()
        return {row.subject: _seen(row, rules.get(row.id, []), came.get(row.subject)) for row in rows}

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.web}/health/ready", trust_env=False, timeout=5).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(_LOOK)
        raise SpecError(f"the guard did not start: its log stands in {self.home.root / 'guard.log'}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        end(process, _STOP_SECONDS)


def archived(archive: Orthanc, kind: str) -> int:
    """Return how many series of a modality (MR, SR) the archive holds."""
    asked = {"Level": "Series", "Query": {"Modality": kind}}
    answer = httpx.post(f"{archive.url}/tools/find", json=asked, trust_env=False, timeout=60.0)
    return len(answer.json())


def _seen(row: Any, rules: Sequence[str], came: float | None) -> Seen:
    said = None if row.result is None else row.result.get("class")
    series = row.subject_kind == "series"
    return Seen(
        verdict=int(row.id),
        outcome=row.outcome,
        said=said,
        rules=tuple(sorted(set(rules))),
        seconds=row.created_at - came - QUIET if series and came is not None else None,
    )


def _rule(row: Any) -> str:
    """Return the rule's name, and of a detector its own."""
    return f"{row.rule}: {row.evidence['detector']}" if "detector" in row.evidence else str(row.rule)


def _free(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
