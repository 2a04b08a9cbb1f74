"""The judge with the checks and the delivery of this guard, on real images."""

import hashlib
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sqlalchemy import insert
from tests.guard.judge.scene import all_of, receive, verdicts_of

from titer.guard.audit.verify import verified
from titer.guard.context import Context
from titer.guard.judge.component import Judge
from titer.guard.judge.explain import kept
from titer.guard.judge.review import decide
from titer.guard.store.tables import baselines, findings, objects, outbox, series

RESULTS = """
[[destinations]]
name = "records"
kind = "fhir"
address = "http://127.0.0.1:9/fhir"

[[routes]]
name = "heads"
modalities = ["MR"]
images = ["pacs"]
results = ["records"]
quiet_seconds = 0.2
"""


def _sent(context: Context, files: list[bytes], route: str) -> None:
    """Put the files of one series into spool and database."""
    context.home.spool.mkdir(parents=True, exist_ok=True)
    rows = []
    for content in files:
        digest = hashlib.sha256(content).hexdigest()
        path = context.home.spool / digest
        path.write_bytes(content)
        one = pydicom.dcmread(path, stop_before_pixels=True)
        rows.append(
            {
                "sop_instance_uid": one.SOPInstanceUID, "sop_class_uid": one.SOPClassUID,
                "study_instance_uid": one.StudyInstanceUID, "series_instance_uid": one.SeriesInstanceUID,
                "transfer_syntax_uid": one.file_meta.TransferSyntaxUID, "digest": digest, "pixel_digest": None,
                "patient": None, "modality": one.Modality, "size": len(content), "path": str(path), "route": route,
                "calling_ae": "MR1", "peer": "127.0.0.1", "received_at": context.clock(), "state": "received",
            }
        )  # fmt: skip
    first = rows[0]
    whole = {
        "series_instance_uid": first["series_instance_uid"], "study_instance_uid": first["study_instance_uid"],
        "route": route, "modality": first["modality"], "patient": None, "objects": len(rows),
        "first_at": first["received_at"], "last_at": first["received_at"], "state": "open", "revision": 0,
    }  # fmt: skip

    def step(connection: object) -> None:
        connection.execute(insert(objects), rows)
        connection.execute(insert(series).values(whole))

    context.journal.write(step)


@pytest.fixture
def heads(titer_data: Path) -> list[bytes]:
    """Ten neighbouring slices of a real head."""
    with zipfile.ZipFile(titer_data / "dicom_volume" / "t1w_mr_130slices_dicom.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
        slices = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]
    chosen = sorted(slices, key=lambda one: int(one.InstanceNumber))[60:70]
    return [_mended(one) for one in chosen]


def _mended(one: pydicom.FileDataset) -> bytes:
    """Say in letters what the position says in numbers: the conversion of this volume wrote others."""
    one.PatientOrientation = ["L", "P"]
    stream = io.BytesIO()
    one.save_as(stream)
    return stream.getvalue()


def _judged(context: Context) -> object:
    until = time.monotonic() + 300
    while not verdicts_of(context):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
    return verdicts_of(context)[0]


def test_a_real_series_passes_goes_on_and_its_device_is_learned(guard, heads):
    context = guard(more=RESULTS)
    _sent(context, heads, "heads")
    judge = Judge(context)
    judge.start()
    verdict = _judged(context)
    judge.stop()
    assert verdict.outcome == "PASS", [row.reason for row in all_of(context, findings)]
    assert {row.kind for row in all_of(context, outbox)} == {"object"}
    assert len(all_of(context, outbox)) == 10
    assert len(all_of(context, baselines)) > 0
    assert verified(context.home)[1] == []


def test_a_strange_image_is_held_a_review_is_asked_for_and_accepting_it_sends_the_result(guard, bundle):
    more = RESULTS.replace('modalities = ["MR"]', 'modalities = ["DX"]\nmodel = "chest"').replace("heads", "chest2")
    context = guard(model=bundle, more=more)
    noise = np.random.default_rng(0).choice([0, 255], size=(28, 28))
    receive(context, "1.2.3.1", noise, route="chest2")
    judge = Judge(context)
    judge.start()
    verdict = _judged(context)
    assert (verdict.outcome, verdict.state) == ("FLAG", "held")
    assert sorted(row.kind for row in all_of(context, outbox)) == ["object", "task"]
    decide(context, verdict.id, "ines", "radiologist", "accept", "a phantom", "normal")
    judge.stop()
    assert sorted(row.kind for row in all_of(context, outbox)) == ["diagnostic-report", "object", "task", "task"]
    assert verified(context.home)[1] == []


def test_the_heat_map_of_an_accepted_result_waits_for_the_archive_beside_its_report(guard, bundle):
    context = guard(model=bundle, tail='results = ["pacs"]\nheatmaps = true\n')
    receive(context, "1.2.3.1", np.random.default_rng(0).choice([0, 255], size=(28, 28)))
    judge = Judge(context)
    judge.start()
    verdict = _judged(context)
    assert (verdict.outcome, verdict.state) == ("FLAG", "held")
    until = time.monotonic() + 300
    while not kept(context, verdict.id):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
    assert {row.kind for row in all_of(context, outbox)} == {"object"}
    decide(context, verdict.id, "ines", "radiologist", "accept", "a phantom", "normal")
    judge.stop()
    assert sorted(row.kind for row in all_of(context, outbox)) == ["capture", "object", "structured-report"]
    (capture,) = [row for row in all_of(context, outbox) if row.kind == "capture"]
    assert (capture.verdict_id, capture.body["input_digest"]) == (verdict.id, verdict.input_digest)
    assert len(all_of(context, baselines)) > 0  # and the device has learned from what was accepted
    assert verified(context.home)[1] == []
