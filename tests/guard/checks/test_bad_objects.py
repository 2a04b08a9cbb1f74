"""Damaged and hostile files: every one ends in findings, within bounded time and memory."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.guard.mutants import judged, rules

from titer.guard.checks import loaded
from titer.guard.records import Finding, Outcome


def test_300_mutated_files_end_in_findings(tmp_path: Path) -> None:
    assert rules(300, 1, tmp_path / "a.dcm") > 100


@pytest.mark.slow
def test_1000_mutated_files_end_in_findings_and_keep_no_memory(tmp_path: Path) -> None:
    rules(100, 2, tmp_path / "a.dcm")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    found = rules(1_000, 3, tmp_path / "a.dcm")
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert found > 300
    assert kept < 16 << 20


def explicit(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    size = len(value) if length is None else length
    head = struct.pack("<HH", group, element) + vr
    return head + (b"\0\0" + struct.pack("<I", size) if long else struct.pack("<H", size)) + value


def file_of(data: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    meta = explicit(2, 0x10, b"UI", syntax)
    return bytes(128) + b"DICM" + explicit(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + data


def peak(run: Callable[[], list[Finding]]) -> tuple[int, list[Finding]]:
    tracemalloc.start()
    findings = run()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used, findings


def test_sequences_nested_without_end_are_blocked(tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = (explicit(0x40, 0x0275, b"SQ", b"", 0xFFFFFFFF) + item) * 20_000
    used, findings = peak(lambda: judged(file_of(nested), tmp_path / "a.dcm"))
    assert Outcome.BLOCK in {one.outcome for one in findings}
    assert used < 256 << 20


def test_a_deflated_bomb_is_blocked_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "MOST_INFLATED", 64 << 20)
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = explicit(0x7FE0, 0x10, b"OB", b"", 1 << 31)
    bomb = press.compress(block) + b"".join(press.compress(bytes(1 << 24)) for _ in range(8)) + press.flush()
    content = file_of(bomb, b"1.2.840.10008.1.2.1.99")
    used, findings = peak(lambda: judged(content, tmp_path / "a.dcm"))
    assert {one.outcome for one in findings} == {Outcome.BLOCK}
    assert used < 32 << 20


def test_an_image_that_claims_four_gibibytes_is_blocked(tmp_path: Path) -> None:
    data = b"".join([
        explicit(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.4\0"), explicit(0x28, 2, b"US", b"\1\0"),
        explicit(0x28, 4, b"CS", b"MONOCHROME2 "), explicit(0x28, 0x10, b"US", b"\xff\xff"),
        explicit(0x28, 0x11, b"US", b"\xff\xff"), explicit(0x28, 0x100, b"US", b"\x10\0"),
        explicit(0x28, 0x101, b"US", b"\x10\0"), explicit(0x28, 0x102, b"US", b"\x0f\0"),
        explicit(0x28, 0x103, b"US", b"\0\0"), explicit(0x7FE0, 0x10, b"OW", bytes(64)),
    ])  # fmt: skip
    used, findings = peak(lambda: judged(file_of(data), tmp_path / "a.dcm"))
    assert ("pixel-form", Outcome.BLOCK) in {(one.rule, one.outcome) for one in findings}
    assert used < 64 << 20


@pytest.mark.parametrize("content", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(131), bytes(128) + b"DICM", bytes(4096)])
def test_what_is_no_dicom_file_is_blocked(content: bytes, tmp_path: Path) -> None:
    findings = judged(content, tmp_path / "a.dcm")
    assert [one.outcome for one in findings] == [Outcome.BLOCK, Outcome.BLOCK]
    assert {one.rule for one in findings} == {"readable"}
