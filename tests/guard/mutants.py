"""Mutated files, units, associations and inputs, for the tests and for benchmarks/guard_fuzz.py.

Each function raises whatever the guard raises that is no named refusal.
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from tests.guard.receive.dicom_peers import (
    CT,
    EXPLICIT,
    Raw,
    associate_request,
    body,
    slice_of,
    store_request,
    store_units,
    unit,
)

from titer.guard.checks.instance import check_instance
from titer.guard.checks.light import Claim, Mismatch, light
from titer.guard.checks.matrices import check_table, contract_of
from titer.guard.checks.past import NoPast
from titer.guard.checks.series import check_series
from titer.guard.checks.vcf import check_vcf
from titer.guard.checks.walk import Unreadable
from titer.guard.receive import dimse, pdu
from titer.guard.receive.part10 import head
from titer.guard.receive.pdu import Violation
from titer.guard.records import Finding

LIGHT = ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "rtplan.dcm", "test-SR.dcm")
RULES = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
         "examples_palette.dcm", "rtplan.dcm", "reportsi.dcm", "JPEG2000.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm",
         "color-pl.dcm")  # fmt: skip
STUMBLING = (b"\xff" * 4, b"\0" * 4, b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\0\0\0\x80")
STRANGE = (b"\t\t", b"\n", b",", b"nan", b"-1e999", b"\xff\xfe", b"./.", b"9" * 40, b"#", b'"')


def mutate(content: bytes, rng: random.Random, stumbling: tuple[bytes, ...] = STUMBLING) -> bytes:
    """Flip, cut, repeat, insert, or overwrite with what parsers stumble over."""
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
            out[at : at + 4] = rng.choice(stumbling)
        else:
            del out[at:]
        if not out:
            return b"\0"
    return bytes(out)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A DICOM file with a few changes, most of them in its header: lengths, value representations, whole elements."""
    broken = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        # Headers stand first: most of the changes fall there.
        at = rng.randrange(128, min(len(broken), 3000)) if rng.random() < 0.7 else rng.randrange(len(broken))
        kind = rng.randrange(5)
        if kind == 0:
            broken[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del broken[at : at + rng.randint(1, 30)]
        elif kind == 2:
            broken[at:at] = broken[at : at + rng.randint(1, 60)]
        elif kind == 3:
            broken[at : at + 4] = struct.pack(
                "<I", rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x10000, 0, rng.randrange(2**32)])
            )
        else:
            broken[at : at + 2] = rng.choice([b"SQ", b"OB", b"DS", b"UN", b"US", b"\xfe\xff", b"\\\\", b"\x00\xe0"])
        if len(broken) < 200:
            break
    if rng.random() < 0.1:
        del broken[rng.randrange(132, len(broken) + 1) :]
    return bytes(broken)


def _files() -> list[tuple[bytes, int, Claim]]:
    out = []
    for name in LIGHT:
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


def light_check(count: int, seed: int = 7) -> int:
    """Give mutated files to T0; returns how many it refused."""
    files, rng, refused = _files(), random.Random(seed), 0
    for number in range(count):
        raw, start, claim = files[number % len(files)]
        changed = raw[:start] + mutate(raw[start:], rng)
        try:
            light(changed, start, claim)
        except (Unreadable, Mismatch):
            refused += 1
        with contextlib.suppress(Unreadable):
            head(mutate(raw[:600], rng))
    return refused


def units(count: int, seed: int = 11) -> int:
    """Give as many mutated requests, command sets and data units to their parsers; returns how many were refused."""
    rng, refused = random.Random(seed), 0
    request, command = associate_request(((CT, EXPLICIT),) * 3)[6:], store_request("1.2.3")
    data = store_units("1.2.3", bytes(500))[6:]
    parsers = ((pdu.request, request), (dimse.parse, command), (lambda raw: list(pdu.values(raw)), data))
    for _ in range(count):
        for parse, whole in parsers:
            try:
                parse(mutate(whole, rng))
            except Violation:
                refused += 1
    return refused


def associations(port: int, count: int, seed: int = 13, every: int = 100) -> float:
    """Send mutated associations, and a good object after `every` of them; returns the longest that one waited, s."""
    rng, longest = random.Random(seed), 0.0
    one = slice_of(1, side=8)
    whole = associate_request() + store_units(str(one.SOPInstanceUID), body(one)) + unit(5, bytes(4))
    for number in range(count):
        with contextlib.suppress(OSError), Raw(port) as peer:
            peer.send(mutate(whole, rng))
        if number % every == 0:
            longest = max(longest, good_peer(port, number + 2))
    return longest


def good_peer(port: int, number: int) -> float:
    """Send a good object; returns how long it took, in seconds.

    A guard whose associations are all taken rejects for the moment; a modality asks again, and the time counts.
    """
    good = slice_of(number, side=8)
    began = time.monotonic()
    while True:
        with Raw(port, calling="GOOD") as peer:
            answer = peer.associate()
            if answer == 2:
                assert peer.store(str(good.SOPInstanceUID), body(good))[0] == 0
                return time.monotonic() - began
        assert answer == 3, f"unit of type {answer}"
        assert time.monotonic() - began < 10, "rejected for ten seconds"
        time.sleep(0.05)


def judged(content: bytes, path: Path) -> list[Finding]:
    """What T1 and T2 find in a file of this content."""
    path.write_bytes(content)
    return [*check_instance(path, NoPast()), *check_series([path], NoPast())]


def rules(count: int, seed: int, path: Path) -> int:
    """Give mutated files to T1 and T2; returns how many had a finding."""
    found = [get_testdata_file(name, download=False) for name in RULES]
    files = [Path(str(one)).read_bytes() for one in found if one is not None]
    rng = random.Random(seed)
    return sum(bool(judged(mutated(rng.choice(files), rng), path)) for _ in range(count))


def inputs(count: int, seed: int, folder: Path) -> int:
    """Give mutated variant files and tables to their checkers, by turns; returns how many had a finding."""
    rng, values = random.Random(seed), np.random.default_rng(5).normal(8, 1, (200, 12))
    names = tuple(f"gene{number}" for number in range(12))
    contract = contract_of(names, values)
    table = "\n".join(
        [",".join(("id", *names)), *(f"p{i},{','.join(f'{v:.4f}' for v in row)}" for i, row in enumerate(values[:9]))]
    )
    variants = (
        "##fileformat=VCFv4.2\n##contig=<ID=1,length=1000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\n"
    )
    variants += "".join(f"1\t{place}\t.\tA\tG\t.\tPASS\t.\tGT\t0/1\n" for place in range(100, 900, 100))
    found = 0
    for number in range(count):
        path = folder / ("a.csv", "a.vcf")[number % 2]
        path.write_bytes(mutate((table, variants)[number % 2].encode(), rng, STRANGE))
        found += bool(check_vcf(path) if number % 2 else check_table(path, contract))
    return found
