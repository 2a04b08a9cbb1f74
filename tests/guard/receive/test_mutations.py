"""Mutated units and files: each is taken or refused by a named error; nothing else is raised, nothing grows."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_peers import echoscu
from hypothesis import given
from hypothesis import strategies as st
from tests.guard import mutants

from titer.guard.checks.walk import Unreadable
from titer.guard.receive import dimse, pdu
from titer.guard.receive.multipart import Garbled, _Scanner
from titer.guard.receive.part10 import head
from titer.guard.receive.pdu import Violation

SOME, MANY = 1_000, 10_000
QUICK = "[dicom]\nrequest_seconds = 1\nidle_seconds = 1\nassociations_per_peer = 30\n"


def _check_live(guard, count: int) -> None:
    """Send mutated associations to a running guard, and a good object after every hundred."""
    mutants.associations(guard.port, count)
    assert echoscu(guard.port).returncode == 0
    assert guard.receiver.trouble() is None


def test_mutated_files_are_read_or_refused() -> None:
    assert 0 < mutants.light_check(SOME) <= SOME


def test_mutated_units_are_read_or_refused() -> None:
    assert mutants.units(SOME) > SOME


def test_mutated_associations_end_alone(start: Callable) -> None:
    _check_live(start(QUICK), 200)


def test_mutated_variant_files_and_tables_are_read_or_refused(tmp_path: Path) -> None:
    assert mutants.inputs(SOME, 17, tmp_path) > SOME / 4


@pytest.mark.slow
def test_ten_thousand_mutated_files_and_units_are_read_or_refused() -> None:
    assert 0 < mutants.light_check(MANY) <= MANY
    assert mutants.units(MANY) > MANY


@pytest.mark.slow
def test_a_thousand_mutated_associations_end_alone(start: Callable) -> None:
    _check_live(start(QUICK), SOME)


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
