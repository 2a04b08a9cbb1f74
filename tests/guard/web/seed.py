"""Real images, verdicts and accounts put into a guard's database, as its other parts write them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import Connection, insert

from titer.guard.context import Context
from titer.guard.deliver.queue import Item, enqueue
from titer.guard.store.tables import findings, objects, outbox, series, verdicts
from titer.guard.web import accounts, passwords, sessions

PASSWORD = "a long enough password"
ENCODED = passwords.hashed(PASSWORD)
SCORES = {
    "feature-squeezing": {"score": 1.84, "threshold": 0.92},
    "reconstruction": {"score": 0.031, "threshold": 0.045},
    "saliency-drift": {"score": 0.61, "threshold": 0.55},
}
RESULT = {"classes": ["glioma", "meningioma", "no tumour"], "probabilities": [0.08, 0.03, 0.89], "label": "no tumour"}


def person(context: Context, name: str, role: str) -> None:
    """Make an account; people have `PASSWORD`."""
    encoded = None if role == "service" else ENCODED
    context.journal.write(
        lambda c: accounts.create(c, name, role, encoded, by="test", at=context.clock(), temporary=False)
    )


def cookie(context: Context, name: str, role: str) -> str:
    """Start a session of an account that exists."""
    return context.journal.write(lambda c: sessions.begin(c, name, role, context.clock()))


def token(context: Context, name: str) -> str:
    return context.journal.write(
        lambda c: accounts.issue(c, name, "test", by="test", at=context.clock(), lifetime=3600)
    )


def mr_files(data: Path, count: int) -> list[bytes]:
    """Slices from the middle of the real head MR series."""
    with zipfile.ZipFile(data / "dicom_volume" / "t1w_mr_130slices_dicom.zip") as archive:
        names = sorted(one for one in archive.namelist() if one.endswith(".dcm"))
        middle = len(names) // 2
        return [archive.read(name) for name in names[middle - count // 2 : middle - count // 2 + count]]


def xray_file(data: Path, number: int) -> bytes:
    """A real chest X-ray as an 8-bit DX object."""
    with np.load(data / "chest_xray" / "pneumoniamnist_28.npz") as arrays:
        return image_file(arrays["test_images"][number], "DX")


def image_file(pixels: Any, modality: str = "DX", **elements: Any) -> bytes:
    """Build an object of grey pixels, uint8, uint16 or int16."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality, made.PatientName, made.PatientID = modality, "MEIER^ANNA", "4711998"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(made, name, value)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def put(context: Context, files: list[bytes], **fields: Any) -> int:
    """Write one series of files and its verdict, and return the verdict's number."""
    at = fields.pop("at", context.clock())
    route, modality = fields.pop("route", "all"), fields.pop("modality", "")
    rows = []
    for content in files:
        data = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        digest = hashlib.sha256(content).hexdigest()
        path = context.home.spool / digest[:2] / f"{digest}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        rows.append(
            {
                "sop_instance_uid": str(data.SOPInstanceUID), "sop_class_uid": str(data.SOPClassUID),
                "study_instance_uid": str(data.StudyInstanceUID), "series_instance_uid": str(data.SeriesInstanceUID),
                "transfer_syntax_uid": str(data.file_meta.TransferSyntaxUID), "digest": digest, "pixel_digest": None,
                "patient": None, "modality": modality or str(data.Modality), "size": len(content), "path": str(path),
                "route": route, "calling_ae": "MR1", "peer": "127.0.0.1", "received_at": at - 0.3, "state": "judged",
            }
        )  # fmt: skip

    def write(connection: Connection) -> int:
        connection.execute(insert(objects), rows)
        first = rows[0]
        about = {name: first[name] for name in ("series_instance_uid", "study_instance_uid", "modality")}
        connection.execute(
            insert(series).values(
                **about, route=route, objects=len(rows), first_at=at - 20, last_at=at - 0.3, state="judged", revision=1
            )
        )
        return verdict(connection, first["series_instance_uid"], route, at, **fields)

    return context.journal.write(write)


def verdict(connection: Connection, subject: str, route: str, at: float, **fields: Any) -> int:
    """Write one verdict with its findings."""
    found = fields.pop("found", [("saliency-drift", "FLAG", "The model looks elsewhere than on clean images.")])
    row = {
        "subject_kind": "series", "subject": subject, "revision": 0, "route": route, "input_digest": "ab" * 32,
        "model_digest": "cd" * 32, "bundle_version": "1", "outcome": "FLAG", "scores": SCORES, "result": RESULT,
        "state": "held", "urgency": 1, "created_at": at, **fields,
    }  # fmt: skip
    number = int(connection.execute(insert(verdicts).values(**row)).inserted_primary_key[0])
    for rule, outcome, reason in found:
        connection.execute(
            insert(findings).values(
                verdict_id=number, series_instance_uid=subject, rule=rule, outcome=outcome, reason=reason, at=at,
                evidence={"score": 0.61, "threshold": 0.55, "slice": 12}, threats=["AML.T0043", "NISTAML.022"],
            )
        )  # fmt: skip
    return number


def history(context: Context, count: int = 120) -> None:
    """Write a day's traffic: verdicts of small series, and what became of their results in the outbox."""
    rng = np.random.default_rng(7)
    now = context.clock()

    def write(connection: Connection) -> None:
        for i in range(count):
            at = now - 86000 * (1 - i / count)
            one, study = generate_uid(), generate_uid()
            last = at - float(rng.gamma(3.0, 0.05))
            connection.execute(
                insert(series).values(
                    series_instance_uid=one, study_instance_uid=study, route="all", modality="DX", objects=1,
                    first_at=last, last_at=last, state="judged", revision=1,
                )
            )  # fmt: skip
            connection.execute(
                insert(objects).values(
                    sop_instance_uid=generate_uid(), sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1", route="all",
                    study_instance_uid=study, series_instance_uid=one, transfer_syntax_uid="1.2.840.10008.1.2.1",
                    digest=f"{i:064x}", modality="DX", size=1000, path="/nowhere", calling_ae="DX1", peer="127.0.0.1",
                    received_at=last, state="judged",
                )
            )  # fmt: skip
            bad = i % 40 == 39
            scores = {
                name: {"score": float(s["threshold"] * rng.uniform(0.4, 0.8) * (1 + 0.3 * i / count)), **_only(s)}
                for name, s in SCORES.items()
            }
            number = verdict(
                connection, one, "all", at, outcome="FLAG" if bad else "PASS", scores=scores, found=[],
                state="accepted" if bad else "released",
            )  # fmt: skip
            enqueue(
                connection,
                Item(destination="pacs", kind="structured-report", subject=one, digest=f"{i:064x}", verdict_id=number),
                at,
            )
        connection.execute(outbox.update().where(outbox.c.id > 5).values(state="delivered"))

    context.journal.write(write)


def _only(score: dict[str, float]) -> dict[str, float]:
    return {"threshold": score["threshold"]}
