"""NRRD files with their data attached: the plain headers that segmentation tools write, raw or gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

_MOST_BYTES = 512 * 2**20
_LONGEST_HEADER = 64 * 1024
_AXES = (2, 3)
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {name: code for code, names in _TYPES.items() for name in names}


def read_nrrd(path: Path) -> np.ndarray:
    """Return the values of an NRRD file, float32 of [H, W] or [D, H, W]: the slowest axis first.

    Teem's format (teem.sourceforge.net/nrrd/format.html), NRRD0001 to NRRD0005.

    Raises:
        ValueError: no NRRD file, a header that is not understood, or data cut short; the message names the field.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES} bytes")
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER + 4)
        if not start.startswith(b"NRRD000"):
            raise ValueError("no NRRD file: it does not begin with 'NRRD000'")
        end, skipped = _header_end(start)
        fields = _fields(start[:end])
        stream.seek(skipped)
        return _values(fields, stream)


def _header_end(content: bytes) -> tuple[int, int]:
    """Return where the header ends and where the data begin: an empty line is between them."""
    ends = [(place, place + len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if (place := content.find(mark)) >= 0]
    if not ends or min(ends)[0] > _LONGEST_HEADER:
        raise ValueError("has no end of its header: an empty line is needed")
    return min(ends)


def _fields(header: bytes) -> dict[str, str]:
    """Return the fields of the header; comments and key/value pairs are left out."""
    fields = {}
    for number, line in enumerate(header.decode("ascii", "replace").splitlines()[1:], start=2):
        if line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"line {number} of its header is no field: {line[:40]!r}")
        fields[name.strip().lower()] = value.strip()
    return fields


def _values(fields: dict[str, str], stream: BinaryIO) -> np.ndarray:
    absent = [name for name in ("type", "dimension", "sizes", "encoding") if name not in fields]
    if absent:
        raise ValueError(f"its header lacks {', '.join(absent)}")
    if {"data file", "datafile"} & set(fields):
        raise ValueError("keeps its data in another file: allowed are attached data")
    if any(fields.get(name, "0") != "0" for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise ValueError("skips lines or bytes: allowed is 0")
    kind, sizes = _kind(fields), _sizes(fields)
    needed = int(np.prod(sizes, dtype=object)) * kind.itemsize
    if not 0 < needed <= _MOST_BYTES:
        raise ValueError(f"sizes: {fields['sizes'][:40]} claims {needed} bytes, allowed are 1 to {_MOST_BYTES}")
    # The first axis varies fastest, so that the last one comes first here.
    values = np.empty(sizes[::-1], dtype=np.float32)
    with _decoded(stream, fields["encoding"].lower()) as data:
        for place in range(len(values)):
            values[place] = _plane(data, kind, values.shape[1:])
    return values


def _plane(data: BinaryIO, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the next values, float32 of `shape`; never more is read than they need, whatever the stream holds."""
    needed = int(np.prod(shape, dtype=object)) * kind.itemsize
    try:
        raw = data.read(needed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its gzip data are damaged or cut short: {str(error)[:60]}") from None
    if len(raw) < needed:
        raise ValueError(f"is cut short: {needed} bytes are needed for each of its planes, the last one has {len(raw)}")
    values = np.frombuffer(raw, dtype=kind).reshape(shape)
    if kind.kind == "f" and not np.isfinite(values).all():
        raise ValueError("holds values that are NaN or infinite")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise ValueError("holds values too large for float32")
    return single


def _kind(fields: dict[str, str]) -> np.dtype:
    code = _CODES.get(fields["type"].lower())
    if code is None:
        raise ValueError(f"type: {fields['type'][:40]} is not known: allowed are {', '.join(sorted(_CODES))}")
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big") and code[1] != "1":
        raise ValueError(f"endian: {endian[:40] or 'missing'}, allowed are little and big")
    return np.dtype((">" if endian == "big" else "<") + code)


def _sizes(fields: dict[str, str]) -> list[int]:
    words = fields["sizes"].split()
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise ValueError(f"sizes: {fields['sizes'][:40]} are no whole numbers")
    if fields["dimension"] != str(len(words)) or len(words) not in _AXES:
        raise ValueError(f"dimension: {fields['dimension'][:40]} with {len(words)} sizes, allowed are 2 and 3 of each")
    return [int(word) for word in words]


def _decoded(stream: BinaryIO, encoding: str) -> BinaryIO:
    if encoding == "raw":
        return stream
    if encoding not in ("gzip", "gz"):
        raise ValueError(f"encoding: {encoding[:40]}, allowed are raw and gzip")
    return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
