"""Objects as they come in, and stand-ins for the parts of the guard that the judge asks."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import insert, select, update

from titer.guard.context import Context
from titer.guard.judge.parts import Parts
from titer.guard.records import Finding, Outcome
from titer.guard.store.tables import objects, series, verdicts

DX = "1.2.840.10008.5.1.4.1.1.1.1"
ROUTE = """
[[destinations]]
name = "pacs"
kind = "dicom"
address = "127.0.0.1:4242"
ae_title = "PACS"

[[routes]]
name = "chest"
images = ["pacs"]
quiet_seconds = 0.2
deadline_seconds = 30.0
"""
MODEL = ROUTE + 'model = "chest"\n'


def dicom(path: Path, values: np.ndarray, uid: str, *, series_uid: str = "1.2.3", number: int = 1) -> bytes:
    """Write a grey image of 8 bits and return its bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DX, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = DX, uid, series_uid
    one.StudyInstanceUID, one.Modality, one.InstanceNumber = "1.2", "DX", number
    one.Rows, one.Columns = values.shape
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 7, 0, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.PixelData = values.astype(np.uint8).tobytes()
    one.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def receive(
    context: Context,
    uid: str,
    values: np.ndarray | None = None,
    *,
    series_uid: str = "1.2.3",
    number: int = 1,
    at: float | None = None,
    route: str = "chest",
) -> int:
    """Put an object into the spool and the database, as the receiving part does; returns its row's number."""
    picture = np.full((8, 8), 100) if values is None else values
    folder = context.home.spool / "aa"
    folder.mkdir(parents=True, exist_ok=True)
    content = dicom(folder / f"{uid}.part", picture, uid, series_uid=series_uid, number=number)
    digest = hashlib.sha256(content).hexdigest()
    path = (folder / f"{uid}.part").rename(folder / digest)
    when = context.clock() if at is None else at

    def step(connection):
        made = connection.execute(
            insert(objects).values(
                sop_instance_uid=uid, sop_class_uid=DX, study_instance_uid="1.2", series_instance_uid=series_uid,
                transfer_syntax_uid=ExplicitVRLittleEndian, digest=digest, pixel_digest=None, patient=None,
                modality="DX", size=len(content), path=str(path), route=route, calling_ae="CR1", peer="127.0.0.1",
                received_at=when, state="received",
            )
        )  # fmt: skip
        mine = series.c.series_instance_uid == series_uid
        if not connection.execute(
            update(series).where(mine).values(objects=series.c.objects + 1, last_at=when, state="open")
        ).rowcount:
            connection.execute(
                insert(series).values(
                    series_instance_uid=series_uid, study_instance_uid="1.2", route=route, modality="DX",
                    patient=None, objects=1, first_at=when, last_at=when, state="open", revision=0,
                )
            )  # fmt: skip
        return made.inserted_primary_key[0]

    return context.journal.write(step)


class Log:
    """What the judge told delivery, and what checks say; `block` and `flag` are UIDs that a check does not like."""

    def __init__(self) -> None:
        self.released: list[int] = []
        self.announced: list[int] = []
        self.maps: list[list] = []
        self.captured: list[tuple[int, list]] = []
        self.learned: list[list[Path]] = []
        self.block: set[str] = set()
        self.flag: set[str] = set()
        self.series_flag = False
        self.raises = False

    def parts(self) -> Parts:
        return Parts(
            check_instance=self._instance,
            check_series=self._series,
            past=lambda _connection, _identity: None,
            learning=lambda _identity, paths: lambda _connection: self.learned.append(list(paths)),
            release=self._release,
            announce=lambda _context, _connection, number: self.announced.append(number),
            captures=lambda _context, _connection, number, maps: self.captured.append((number, list(maps))),
        )

    def _release(self, _context: Context, _connection: object, number: int, maps: list | tuple = ()) -> None:
        self.released.append(number)
        self.maps.append(list(maps))

    def _instance(self, path: Path, _past: object) -> list[Finding]:
        if self.raises:
            raise ZeroDivisionError
        content = path.read_bytes()
        found = []
        for wanted, outcome in ((self.block, Outcome.BLOCK), (self.flag, Outcome.FLAG)):
            if any(uid.encode() in content for uid in wanted):
                found.append(Finding(rule="odd", outcome=outcome, reason="it is odd"))
        return found

    def _series(self, _paths: list[Path], _past: object) -> list[Finding]:
        return [Finding(rule="gap", outcome=Outcome.FLAG, reason="a slice is missing")] if self.series_flag else []


def all_of(context: Context, table):
    with context.engine.connect() as connection:
        return connection.execute(select(table).order_by(*table.primary_key.columns)).all()


def verdicts_of(context: Context, kind: str = "series"):
    return [row for row in all_of(context, verdicts) if row.subject_kind == kind]
