"""Objects that real peers send are stored byte for byte, once, and only then acknowledged."""

import hashlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from dicom_peers import CT, EXPLICIT, Raw, body, echoscu, saved, slice_of, storescu
from pydicom.data import get_testdata_file
from pynetdicom import AE

from titer.guard.audit.verify import verified
from titer.guard.store.tables import audit, findings, objects, series, verdicts


def test_echoscu_is_answered(guard) -> None:
    done = echoscu(guard.port)
    assert done.returncode == 0, done.stderr


def test_another_called_title_is_rejected(guard) -> None:
    done = echoscu(guard.port, called="OTHER")
    assert "Called AE Title Not Recognized" in done.stderr
    assert "another called AE title" in guard.rows(audit)[-1].event


def test_a_series_of_storescu_stands_in_the_spool_byte_for_byte(guard, tmp_path: Path) -> None:
    slices = [slice_of(number) for number in range(5)]
    done = storescu(guard.port, *(saved(one, tmp_path) for one in slices))
    assert done.returncode == 0, done.stderr
    rows = guard.rows(objects)
    assert {row.sop_instance_uid for row in rows} == {str(one.SOPInstanceUID) for one in slices}
    for row in rows:
        content = Path(row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.digest
        sent = next(one for one in slices if one.SOPInstanceUID == row.sop_instance_uid)
        assert content.endswith(body(sent))
        assert hashlib.sha256(sent.PixelData).hexdigest() == row.pixel_digest
        assert pydicom.dcmread(row.path) == sent
    [one] = guard.rows(series)
    assert (one.objects, one.state, one.modality, one.route) == (5, "open", "CT", "all")
    assert len(guard.rows(audit)) == 5


def test_no_patient_stands_in_the_database(guard, tmp_path: Path) -> None:
    storescu(guard.port, saved(slice_of(1), tmp_path))
    everything = str([guard.rows(table) for table in (objects, series, audit, findings)])
    assert "4711" not in everything
    assert "Jane" not in everything
    assert len(guard.rows(objects)[0].patient) == 64


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MR_small_implicit.dcm", ("-xi",)),
        ("MR_small_bigendian.dcm", ("-xb",)),
        ("SC_rgb_jpeg_dcmtk.dcm", ("-xy",)),
        ("JPEG2000.dcm", ("-xw",)),
        ("SC_rgb_rle_16bit.dcm", ("-xr",)),
        ("SC_ybr_full_422_uncompressed.dcm", ("-xe",)),
        ("rtdose.dcm", ("-R", "-xi")),
        ("test-SR.dcm", ("-R",)),
        ("waveform_ecg.dcm", ("-R",)),
    ],
)
def test_every_kind_of_pixel_data_and_syntax_comes_through(guard, name: str, options: tuple[str, ...]) -> None:
    done = storescu(guard.port, Path(get_testdata_file(name)), options=options)
    assert "(Success)" in done.stderr, done.stderr
    [row] = guard.rows(objects)
    stored, sent = pydicom.dcmread(row.path), pydicom.dcmread(get_testdata_file(name))
    assert row.transfer_syntax_uid == sent.file_meta.TransferSyntaxUID
    assert stored.get("PixelData") == sent.get("PixelData")
    assert {one.tag for one in sent if one.tag.element} <= {one.tag for one in stored}  # DCMTK drops group lengths


def test_dcmsend_and_pynetdicom_are_served(guard, tmp_path: Path) -> None:
    command = ["dcmsend", "-v", "-aec", "TITER", "127.0.0.1", str(guard.port), str(saved(slice_of(1), tmp_path))]
    sent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert sent.returncode == 0, sent.stderr
    entity = AE(ae_title="PYNET")
    entity.add_requested_context(CT, EXPLICIT)
    association = entity.associate("127.0.0.1", guard.port, ae_title="TITER", max_pdu=4096)
    status = association.send_c_store(slice_of(2))
    association.release()
    assert status.Status == 0x0000
    assert {row.calling_ae for row in guard.rows(objects)} == {"DCMSEND", "PYNET"}


def test_g2_the_same_object_again_is_a_success_without_a_second_row(guard) -> None:
    one = slice_of(1)
    with Raw(guard.port) as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
        assert peer.store(one.SOPInstanceUID, body(one), 2) == (0, "")
    assert len(guard.rows(objects)) == len(guard.files()) == 1
    assert guard.rows(series)[0].objects == 1


def test_g2_the_same_uid_with_other_content_is_refused_and_kept_as_evidence(guard) -> None:
    first, other = slice_of(1), slice_of(1, seed=5)
    with Raw(guard.port) as peer:
        peer.associate()
        peer.store(first.SOPInstanceUID, body(first))
        for _ in range(2):
            assert peer.store(first.SOPInstanceUID, body(other))[0] == 0xA779
        assert peer.store(first.SOPInstanceUID, body(first)) == (0, "")
    kept, evidence = guard.rows(objects)
    assert (kept.state, evidence.state) == ("received", "quarantined")
    assert Path(kept.path).read_bytes().endswith(body(first))
    assert Path(evidence.path).read_bytes().endswith(body(other))
    [finding] = guard.rows(findings)
    assert (finding.outcome, finding.object_id, finding.rule) == ("BLOCK", evidence.id, "same-uid-other-content")
    [verdict] = guard.rows(verdicts)
    assert (verdict.state, verdict.outcome, verdict.input_digest) == ("held", "BLOCK", evidence.digest)
    assert sum("Security Alert" in row.event for row in guard.rows(audit)) == 2
    assert len(guard.files()) == 1


def test_the_same_object_on_two_associations_at_once_is_one_object(guard) -> None:
    one = slice_of(1, side=256)
    content = body(one)
    answers: list[tuple[int, str]] = []
    ready = threading.Barrier(4)

    def send(calling: str) -> None:
        with Raw(guard.port, calling=calling) as peer:
            peer.associate()
            ready.wait(20)
            answers.append(peer.store(one.SOPInstanceUID, content))

    threads = [threading.Thread(target=send, args=(f"CT{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(0, "")] * 4
    assert len(guard.rows(objects)) == len(guard.files()) == 1


def test_interleaved_series_are_counted_apart(guard) -> None:
    with Raw(guard.port) as peer:
        peer.associate()
        for number in range(6):
            one = slice_of(number, series=1 + number % 2)
            assert peer.store(one.SOPInstanceUID, body(one), number)[0] == 0
    assert sorted(row.objects for row in guard.rows(series)) == [3, 3]


def test_a_late_slice_opens_its_series_again(guard) -> None:
    first, late = slice_of(1), slice_of(2)
    with Raw(guard.port) as peer:
        peer.associate()
        peer.store(first.SOPInstanceUID, body(first))
        guard.context.journal.write(lambda c: c.execute(series.update().values(state="judged", revision=1)))
        peer.store(late.SOPInstanceUID, body(late))
    [one] = guard.rows(series)
    assert (one.state, one.revision, one.objects) == ("open", 1, 2)


def test_an_object_that_no_route_takes_is_refused(start: Callable) -> None:
    guard = start(route='[[routes]]\nname = "mri"\nmodalities = ["MR"]\n')
    one = slice_of(1)
    with Raw(guard.port) as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one)) == (0x0124, "no route takes this modality from this sender")
    assert guard.files() == guard.rows(objects) == []
    assert "0x0124" in guard.rows(audit)[0].event


def test_a_class_that_is_no_storage_is_not_accepted(guard) -> None:
    with Raw(guard.port) as peer:
        peer.associate(((("1.2.840.10008.5.1.4.31"), EXPLICIT), (CT, "1.2.840.10008.1.2.1.99"), (CT, EXPLICIT)))
        one = slice_of(1)
        peer.send(b"\x04\0\0\0\0\x08" + b"\0\0\0\x04\x01\x03\0\0")
        assert peer.receive()[0] == 7
    with Raw(guard.port) as peer:
        assert peer.associate() == 2
        assert peer.store(one.SOPInstanceUID, body(one))[0] == 0
        assert peer.release() == 6


def test_a_large_object_is_written_piece_by_piece(guard) -> None:
    one = slice_of(1, side=2048)
    with Raw(guard.port) as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
    [row] = guard.rows(objects)
    assert Path(row.path).read_bytes().endswith(body(one))


def test_g5_the_audit_chain_over_receptions_is_whole(guard, tmp_path: Path) -> None:
    storescu(guard.port, *(saved(slice_of(number), tmp_path) for number in range(3)))
    echoscu(guard.port, called="OTHER")
    assert len(guard.rows(audit)) == 4
    assert verified(guard.home) == (4, [])
