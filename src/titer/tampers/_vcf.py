"""Edit VCF files line by line: what a tamper does not name keeps every byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from titer.core.errors import Incompatible
from titer.core.protocols import Tampered
from titer.tampers._bgzf import packed, unpacked

CHROM, POS, REF, ALT, FORMAT, SAMPLES = 0, 1, 3, 4, 8, 9
"""Columns of a record."""

_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_FEWEST = 8

Rows = list[list[str]]
"""Records, each as its columns."""

Edit = Callable[[Sequence[str], Rows], Sequence[str]]
"""Gets the header's lines and the records, changes the records in place, and returns a sentence for each change."""


def edited(files: Mapping[str, bytes], edit: Edit) -> Tampered:
    """Return VCF files, plain or compressed, each with its records edited.

    Raises:
        Incompatible: a file is no VCF file, or `edit` finds nothing to change in it.
    """
    if not files:
        raise Incompatible("a VCF file is needed")
    out, changed = {}, []
    for name, content in files.items():
        header, rows, end = _read(name, unpacked(name, content))
        changed += [f"{name}: {told}" for told in edit(header, rows)]
        text = "\n".join([*header, *("\t".join(row) for row in rows)]) + end
        out[name] = packed(text.encode(), content)
    return Tampered(files=out, changed=tuple(changed))


def _read(name: str, plain: bytes) -> tuple[list[str], Rows, str]:
    """Return the header's lines, the records, and the end of the last line."""
    try:
        text = plain.decode()
    except UnicodeDecodeError:
        raise Incompatible(f"{name} is no VCF file: it is not UTF-8") from None
    lines = text.split("\n")
    end = ""
    if lines[-1] == "":
        lines, end = lines[:-1], "\n"
    first = next((i for i, line in enumerate(lines) if not line.startswith("##")), len(lines))
    if not text.startswith("##fileformat=VCF") or first == len(lines) or not lines[first].startswith(_COLUMNS):
        raise Incompatible(f"{name} is no VCF file: '##fileformat=VCF' and the line '#CHROM POS ID ...' are needed")
    rows = [line.split("\t") for line in lines[first + 1 :]]
    short = next((i for i, row in enumerate(rows) if len(row) < _FEWEST), None)
    if short is not None:
        raise Incompatible(f"{name}: line {first + 2 + short} has {len(rows[short])} columns, not {_FEWEST} or more")
    if not rows:
        raise Incompatible(f"{name} holds no records")
    return lines[: first + 1], rows, end


def place(row: Sequence[str]) -> str:
    """Return where a record lies: `contig:position`."""
    return f"{row[CHROM]}:{row[POS]}"
