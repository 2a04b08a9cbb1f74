"""Mutated units and files: each is taken or refused by a named error; nothing else is raised, nothing grows."""

import contextlib
import random
from collections.abc import Callable
from io import BytesIO

import pytest
from dicom_peers import CT, EXPLICIT, Raw, associate_request, body, echoscu, slice_of, store_request, store_units, unit
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file

from titer.guard.checks.light import Claim, Mismatch, light
from titer.guard.checks.walk import Unreadable
from titer.guard.receive import dimse, pdu
from titer.guard.receive.multipart import Garbled, _Scanner
from titer.guard.receive.part10 import head
from titer.guard.receive.pdu import Violation

FILES = ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "rtplan.dcm", "test-SR.dcm")
STUMBLING = (b"\xff" * 4, b"\0" * 4, b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0\0\0\x80")
SOME, MANY = 1_000, 10_000


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, insert, or overwrite with a number that parsers stumble over."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == 4:
            out[at : at + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0\0\0\x80")
            )
        else:
            del out[at:]
        if not out:
            return b"\0"
    return bytes(out)


def _files() -> list[tuple[bytes, int, Claim]]:
    out = []
    for name in FILES:
        ds = dcmread(get_testdata_file(name))
        stream = BytesIO()
        ds.save_as(stream, enforce_file_format=True)
        raw = stream.getvalue()
        found = head(raw)
        assert found is not None
        claim, start = found
        light(raw, start, claim)
        out.append((raw[:20_000] if len(raw) > 60_000 else raw, start, claim))
    return out


def _check_files(count: int) -> None:
    files, rng, refused = _files(), random.Random(7), 0
    for number in range(count):
        raw, start, claim = files[number % len(files)]
        mutated = raw[:start] + mutate(raw[start:], rng)
        try:
            light(mutated, start, claim)
        except (Unreadable, Mismatch):
            refused += 1
        with contextlib.suppress(Unreadable):
            head(mutate(raw[:600], rng))
    assert 0 < refused <= count


def _check_units(count: int) -> None:
    rng = random.Random(11)
    request, command = associate_request(((CT, EXPLICIT),) * 3)[6:], store_request("1.2.3")
    data = store_units("1.2.3", bytes(500))[6:]
    for _ in range(count):
        with contextlib.suppress(Violation):
            pdu.request(mutate(request, rng))
        with contextlib.suppress(Violation):
            dimse.parse(mutate(command, rng))
        with contextlib.suppress(Violation):
            list(pdu.values(mutate(data, rng)))


def _check_live(guard, count: int) -> None:
    """Send mutated associations to a running guard, and a good object after every hundred."""
    rng = random.Random(13)
    one = slice_of(1, side=8)
    whole = associate_request() + store_units(str(one.SOPInstanceUID), body(one)) + unit(5, bytes(4))
    for number in range(count):
        with contextlib.suppress(OSError), Raw(guard.port) as peer:
            peer.send(mutate(whole, rng))
        if number % 100 == 0:
            good = slice_of(number + 2, side=8)
            with Raw(guard.port, calling="GOOD") as peer:
                assert peer.associate() == 2
                assert peer.store(str(good.SOPInstanceUID), body(good))[0] == 0
    assert echoscu(guard.port).returncode == 0
    assert guard.receiver.trouble() is None


def test_mutated_files_are_read_or_refused() -> None:
    _check_files(SOME)


def test_mutated_units_are_read_or_refused() -> None:
    _check_units(SOME)


def test_mutated_associations_end_alone(start: Callable) -> None:
    _check_live(start("[dicom]\nrequest_seconds = 1\nidle_seconds = 1\nassociations_per_peer = 30\n"), 200)


@pytest.mark.slow
def test_ten_thousand_mutated_files_and_units_are_read_or_refused() -> None:
    _check_files(MANY)
    _check_units(MANY)


@pytest.mark.slow
def test_two_thousand_mutated_associations_end_alone(start: Callable) -> None:
    _check_live(start("[dicom]\nrequest_seconds = 1\nidle_seconds = 1\nassociations_per_peer = 30\n"), 2_000)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_a_violation(content: bytes) -> None:
    with contextlib.suppress(Violation):
        pdu.request(content)
    with contextlib.suppress(Violation):
        dimse.parse(content)
    with contextlib.suppress(Unreadable):
        head(bytes(128) + b"DICM" + content)


@given(st.lists(st.binary(max_size=80), max_size=6), st.integers(1, 40))
def test_a_multipart_body_is_the_same_however_it_is_cut(parts: list[bytes], step: int) -> None:
    parts = [part.replace(b"\r\n--cut", b"") for part in parts]
    whole = b"".join(b"--cut\r\n\r\n" + part + b"\r\n" for part in parts) + b"--cut--"
    scanner, found, current = _Scanner(b"\r\n--cut"), [], b""
    for at in range(0, len(whole), step):
        scanner.buffer += whole[at : at + step]
        for event in scanner.scan():
            if isinstance(event, bytes):
                current += event
            elif type(event).__name__ == "End":
                found.append(current)
                current = b""
    assert scanner.closed
    assert found == parts


@given(st.binary(max_size=300))
def test_any_bytes_are_a_multipart_or_garbled(content: bytes) -> None:
    scanner = _Scanner(b"\r\n--cut")
    scanner.buffer += content
    with contextlib.suppress(Garbled):
        scanner.scan()
