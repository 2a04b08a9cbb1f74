"""Executable preamble: a DICOM file that also passes for a program, by the 128 bytes that DICOM leaves free."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Literal

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered

_FREE = 128
_OFFSET = 60


@tamper(
    "preamble-executable",
    files="dicom",
    misses="reading with strict values, and a digest of the data set: DICOM says nothing of the preamble's 128 bytes",
    threat_ids=("AML.T0011",),
)
def preamble_executable(*, form: Literal["pe", "elf"] = "pe") -> Tamper:
    """Put the header of an executable into the preamble (CVE-2019-11687); it is a header only and runs nothing.

    Args:
        form: `pe` (Windows) or `elf` (Linux).
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        header = _pe() if form == "pe" else _elf()
        out = {}
        for name, content in files.items():
            if content[_FREE : _FREE + 4] != b"DICM":
                raise Incompatible(f"{name} is no DICOM file: 'DICM' does not stand after 128 bytes")
            out[name] = header + content[_FREE:]
        return Tampered(
            files=out, changed=tuple(f"{name}: the preamble became the header of an {form} file" for name in files)
        )

    return run


def _pe() -> bytes:
    """Return the DOS header that begins a PE file; its pointer to the PE header leads to nothing (0)."""
    return (b"MZ" + bytes(_OFFSET - 2) + struct.pack("<I", 0)).ljust(_FREE, b"\0")


def _elf() -> bytes:
    """Return the header of a 64-bit ELF file without entry point, segments or sections: nothing can be loaded."""
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return (identity + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)).ljust(_FREE, b"\0")
