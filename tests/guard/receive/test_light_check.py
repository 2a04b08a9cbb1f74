"""T0: what is malformed or not what its message said is refused before it is acknowledged."""

import struct
import time
from io import BytesIO

import pytest
from dicom_peers import CT, EXPLICIT, Raw, body, slice_of
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from titer.guard.checks.light import Claim, Mismatch, light
from titer.guard.checks.walk import Unreadable
from titer.guard.store.tables import audit, objects

IMPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.50"


def _claim(ds: Dataset, syntax: str = EXPLICIT, **changes: str) -> Claim:
    given = {"sop_class_uid": CT, "sop_instance_uid": str(ds.SOPInstanceUID), "transfer_syntax_uid": syntax, **changes}
    return Claim(**given)


def _said(ds: Dataset, content: bytes | None = None, syntax: str = EXPLICIT) -> str:
    with pytest.raises((Unreadable, Mismatch)) as error:
        light(body(ds) if content is None else content, 0, _claim(ds, syntax))
    said = str(error.value)
    assert "4711" not in said
    assert len(said) <= 90
    return said


def test_a_good_slice_is_read() -> None:
    ds = slice_of(1)
    header = light(body(ds), 0, _claim(ds))
    assert (header.modality, header.patient_id, header.issuer) == ("CT", "PID-4711", "ward")
    assert header.pixels is not None
    assert body(ds)[slice(*header.pixels)] == ds.PixelData


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("Rows", 640), ("Columns", 1), ("SamplesPerPixel", 3), ("BitsAllocated", 8), ("NumberOfFrames", "2"),
        ("NumberOfFrames", "4294967295"), ("Rows", 0), ("BitsAllocated", 12),
    ],
)  # fmt: skip
def test_geometry_that_the_pixel_data_does_not_have_is_refused(attribute: str, value: object) -> None:
    ds = slice_of(1)
    setattr(ds, attribute, value)
    assert any(word in _said(ds) for word in ("geometry", "decodes", "dimension", "Bits Allocated"))


@pytest.mark.parametrize("attribute", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_uid_that_is_missing_is_named(attribute: str) -> None:
    ds = slice_of(1)
    claim = _claim(ds)
    delattr(ds, attribute)
    with pytest.raises(Mismatch, match="no S"):
        light(body(ds), 0, claim)


@pytest.mark.parametrize("wrong", ["../../etc/passwd", "1.2/3", "1..2", "1.2\\3", "a.b", ".1"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_path_characters_in_a_uid_are_refused(wrong: str) -> None:
    ds = slice_of(1)
    ds.SeriesInstanceUID = wrong
    assert "Series Instance UID is no UID" in _said(ds)


def test_another_class_or_instance_than_the_requests_is_refused() -> None:
    ds = slice_of(1)
    for changes in ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, {"sop_instance_uid": "1.2.3"}):
        with pytest.raises(Mismatch, match="differs from the request"):
            light(body(ds), 0, _claim(ds, **changes))


def _nested(depth: int) -> bytes:
    """Sequences of undefined length inside each other."""
    opened = struct.pack("<HH2s2xI", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opened * depth + closed * depth


def _with(ds: Dataset, extra: bytes) -> bytes:
    """Put an element of group 0040 where it belongs."""
    content = body(ds)
    at = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    return content[:at] + extra + content[at:]


def test_sequences_may_nest_but_not_without_end() -> None:
    ds = slice_of(1)
    light(_with(ds, _nested(12)), 0, _claim(ds))
    for depth in (40, 100_000):
        assert "nested too deeply" in _said(ds, _with(ds, _nested(depth)))


def test_a_bomb_of_empty_items_is_refused_soon() -> None:
    ds = slice_of(1)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 600_000
    bomb = struct.pack("<HH2s2xI", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF) + items
    assert "too many elements" in _said(ds, _with(ds, bomb))


@pytest.mark.parametrize(
    "extra",
    [
        struct.pack("<HH2s2xI", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF),
        struct.pack("<HH2s2xI", 0x0040, 0xA730, b"SQ", 0xFFFFFFF0),
        struct.pack("<HH2s2xI", 0x0040, 0xA730, b"OB", 0xFFFFFFFF),
        struct.pack("<HH2s2xI", 0x0040, 0xA730, b"UT", 0x7FFFFFFF),
        struct.pack("<HH2sH", 0x0040, 0xA730, b"ZZ", 0),
        struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 0),
        struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
        struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ],
)
def test_lengths_and_orders_that_do_not_hold_are_refused(extra: bytes) -> None:
    assert _said(slice_of(1), _with(slice_of(1), extra))


def test_an_object_cut_off_anywhere_is_refused() -> None:
    ds = slice_of(1, side=4)
    content = body(ds)
    light(content, 0, _claim(ds))
    whole = content.index(struct.pack("<HH2s", 0x0020, 0x0013, b"IS"))  # from here on, what T0 needs is there
    geometry = content.index(struct.pack("<HH2s", 0x0028, 0x0100, b"US")) + 10
    for end in (*range(whole), *range(geometry, len(content))):
        with pytest.raises((Unreadable, Mismatch)):
            light(content[:end], 0, _claim(ds))


def test_encapsulation_must_be_that_of_the_transfer_syntax() -> None:
    ds = slice_of(1)
    assert "against its transfer syntax" in _said(ds, syntax=JPEG)
    ds.PixelData = encapsulate([bytes(64)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    assert "against its transfer syntax" in _said(ds)
    ds.Rows = ds.Columns = 40000
    assert light(body(ds), 0, _claim(ds, JPEG)).pixels
    ds.SamplesPerPixel = 3
    assert "decodes to more" in _said(ds, syntax=JPEG)


def test_a_patient_is_the_same_in_every_character_set() -> None:
    ds = slice_of(1)
    found = []
    for charset in ("ISO_IR 100", "ISO_IR 192"):
        ds.SpecificCharacterSet, ds.PatientID = charset, "Müller-7"
        found.append(light(body(ds), 0, _claim(ds)).patient_id)
    assert found == ["Müller-7"] * 2
    ds.SpecificCharacterSet = "ISO_IR 999"
    with pytest.warns(UserWarning, match="ISO_IR 999"):
        content = body(ds)
    assert light(content, 0, _claim(ds)).patient_id


def test_an_icon_and_nested_sequences_do_not_stand_in_for_the_object() -> None:
    ds = slice_of(1)
    inner = Dataset()
    inner.SOPInstanceUID, inner.Rows, inner.PixelData = "1.2.3", 9, bytes(8)
    inner["PixelData"].VR = "OW"
    ds.IconImageSequence = Sequence([inner])
    assert light(body(ds), 0, _claim(ds)).pixels


def test_the_check_of_a_real_slice_is_short() -> None:
    path = get_testdata_file("CT_small.dcm")
    ds = dcmread(path)
    content = body(ds)
    claim = _claim(ds)
    light(content, 0, claim)
    began = time.perf_counter()
    for _ in range(20):
        light(content, 0, claim)
    assert (time.perf_counter() - began) / 20 < 0.05  # 0.2 ms; what is 2 ms by requirement is measured by the benchmark


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda ds: setattr(ds, "Rows", 640), 0xC000),
        (lambda ds: delattr(ds, "StudyInstanceUID"), 0xA900),
        (lambda ds: setattr(ds, "SOPInstanceUID", "1.2.3"), 0xA900),
    ],
)
def test_a_sender_is_told_by_status_and_a_comment_without_the_patient(guard, change, status: int) -> None:
    ds = slice_of(1)
    name = str(ds.SOPInstanceUID)
    change(ds)
    with Raw(guard.port) as peer:
        peer.associate()
        code, comment = peer.store(name, body(ds))
        assert code == status
        assert 0 < len(comment) <= 64
        assert "4711" not in comment
        good = slice_of(2)
        assert peer.store(good.SOPInstanceUID, body(good), 2) == (0, "")
    assert len(guard.rows(objects)) == len(guard.files()) == 1
    assert f"0x{status:04X}" in guard.rows(audit)[0].event


def test_deflated_data_sets_are_not_received() -> None:
    ds = slice_of(1)
    assert "not received" in _said(ds, syntax="1.2.840.10008.1.2.1.99")


def test_implicit_and_big_endian_objects_are_walked_too() -> None:
    for name in ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm"):
        ds = dcmread(get_testdata_file(name))
        stream = BytesIO()
        ds.save_as(stream, enforce_file_format=True)
        raw = stream.getvalue()
        syntax = str(ds.file_meta.TransferSyntaxUID)
        start = 132 + 12 + int.from_bytes(raw[140:144], "little")
        header = light(raw, start, _claim(ds, syntax, sop_class_uid=str(ds.SOPClassUID)))
        assert header.study_instance_uid == ds.StudyInstanceUID
