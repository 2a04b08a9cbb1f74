"""Objects and results reach real peers, byte for byte (G3), at least once and once in effect (G2)."""

import hashlib
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from tests.guard.deliver.peers import (
    Faulty,
    copies,
    data_bytes,
    destination,
    faulty,
    free_port,
    storescp,
)

from titer.guard.operate.orthanc import dicomweb_plugin

SYNTAXES = ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"]
"""Explicit little endian, RLE, JPEG 2000, big endian, implicit little endian."""


@pytest.mark.parametrize("name", SYNTAXES)
def test_g3_storescp_gets_the_data_set_byte_for_byte(name, make_guard, tmp_path):
    content = Path(get_testdata_file(name)).read_bytes()
    port = free_port()
    with storescp(tmp_path / "in", port):
        guard = make_guard(destination("pacs", "dicom", f"127.0.0.1:{port}"))
        guard.start()
        guard.receive(content, "pacs")
        guard.settled()
        guard.stop()
        (written,) = (tmp_path / "in").iterdir()
        assert data_bytes(written.read_bytes()) == data_bytes(content)


def test_g3_orthanc_gives_back_the_bytes_that_were_received(make_guard, orthanc):
    content = copies(1)[0]
    guard = make_guard(destination("pacs", "dicom", orthanc.address))
    guard.start()
    uid = guard.receive(content, "pacs")
    guard.settled()
    assert data_bytes(orthanc.file(uid)) == data_bytes(content)


def test_g3_a_file_that_was_changed_on_the_disk_is_not_sent_and_raises_an_alert(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct, "pacs")
        path = Path(guard.items()[0].path)
        path.write_bytes(ct[:-1] + bytes([ct[-1] ^ 1]))
        guard.start()
        (item,) = guard.settled("dead")
        assert "digest differs" in item.last_error
        assert len(guard.audited('"110113"')) == 1
        assert peer.stored == []


def test_g3_a_file_that_is_changed_while_it_is_sent_raises_an_alert(make_guard, ct):
    peer = Faulty()
    with faulty(peer):
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct, "pacs")
        path = Path(guard.items()[0].path)

        def change(_event):
            path.write_bytes(b"x")
            return 0x0000

        peer.answer = change
        guard.start()
        guard.settled("dead")
        assert len(guard.audited('"110113"')) == 1


def test_a_whole_series_goes_over_one_association_and_every_transfer_is_an_audit_row(make_guard):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        sent = copies(30)
        for content in sent:
            guard.receive(content, "pacs")
        guard.start()
        guard.settled(count=30)
        assert [data for _, data in peer.stored] == [data_bytes(content) for content in sent]
        assert peer.associations == 1
        rows = guard.audited('"110104"')
        assert len(rows) == 30
        assert all(hashlib.sha256(content).hexdigest() in row for content, row in zip(sent, rows, strict=True))


def test_an_association_is_made_anew_for_a_kind_of_object_that_it_does_not_take(make_guard, ct):
    mr = Path(get_testdata_file("MR_small.dcm")).read_bytes()
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.start()
        guard.receive(ct, "pacs")
        guard.settled(count=1)
        guard.receive(mr, "pacs")
        guard.settled(count=2)
        assert [data for _, data in peer.stored] == [data_bytes(ct), data_bytes(mr)]
        assert peer.associations == 2


def test_a_transfer_syntax_that_the_peer_does_not_take_is_never_converted(make_guard):
    content = Path(get_testdata_file("JPEG2000.dcm")).read_bytes()
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.start()
        guard.receive(content, "pacs")
        (item,) = guard.settled("dead")
        assert "no transfer syntax that its file has" in item.last_error
        assert peer.stored == []


def test_what_waited_before_a_restart_is_sent_after_it(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct, "pacs")
        guard.start()
        guard.settled()
        guard.stop()
        late = guard.receive(copies(1)[0], "pacs")
        guard.start()
        guard.settled(count=2)
        assert peer.stored[-1][0] == late


def test_an_object_that_was_quarantined_after_it_was_queued_does_not_leave(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct, "pacs", state="quarantined")
        guard.start()
        (item,) = guard.settled("withheld")
        assert item.last_error == "the object is quarantined"
        assert peer.stored == []


def test_stow_stores_an_object_in_orthanc_byte_for_byte(make_guard, orthanc):
    if dicomweb_plugin() is None:
        pytest.skip("Orthanc's DICOMweb plugin is not installed (apt-get install orthanc-dicomweb)")
    content = copies(1)[0]
    guard = make_guard(destination("archive", "dicomweb", orthanc.dicomweb))
    guard.start()
    uid = guard.receive(content, "archive")
    guard.settled()
    assert data_bytes(orthanc.file(uid)) == data_bytes(content)
