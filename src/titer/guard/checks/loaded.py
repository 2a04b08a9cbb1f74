"""An object as the rules see it: read once, with bounded memory; nothing in it is trusted."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from titer.core.errors import TiterError

if TYPE_CHECKING:
    from pydicom import FileDataset

    from titer.guard.checks.past import Past

PREAMBLE = 128
_DEFLATED = "1.2.840.10008.1.2.1.99"
MOST_INFLATED = 1 << 29
"""Bytes that a deflated data set may grow to."""
_MOST_DECODED = 1 << 28
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED)
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


class Unreadable(TiterError):  # noqa: N818 - says what it is
    """The file is no DICOM object that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A DICOM object: its data set, its first 128 bytes, and SHA-256 of the file and of its encoded pixels."""

    path: Path
    size: int
    digest: str
    pixel_digest: str | None
    preamble: bytes
    dataset: FileDataset

    def text(self, keyword: str) -> str:
        """Return an element's value as text without padding, "" where it is absent or empty."""
        return text(self.dataset, keyword)

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return the values of an element with several of them."""
        value = self.dataset.get(keyword)
        if value is None or value == "":
            return ()
        return tuple(str(one).strip() for one in ([value] if isinstance(value, str) else _many(value)))

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return an element's numbers, () where it is absent; ValueError where one is no finite number."""
        value = self.dataset.get(keyword)
        if value is None or value == "":
            return ()
        found = tuple(float(one) for one in _many(value))
        if not all(math.isfinite(one) for one in found):
            raise ValueError(f"{keyword} is not finite")
        return found

    def number(self, keyword: str) -> float | None:
        """Return an element's first number, None where it is absent."""
        found = self.numbers(keyword)
        return found[0] if found else None

    @property
    def syntax(self) -> str:
        """The transfer syntax UID, "" where the file does not tell."""
        return str(self.dataset.file_meta.get("TransferSyntaxUID") or "")

    @property
    def native(self) -> bool:
        """Whether pixels are stored uncompressed."""
        return self.syntax in _NATIVE

    def device(self, past: Past) -> str:
        """Return the keyed digest of what made it: manufacturer, model, station, protocol."""
        keys = ("Manufacturer", "ManufacturerModelName", "StationName", "ProtocolName")
        return past.keyed("device", *(self.text(key) for key in keys))

    def grey(self) -> np.ndarray | None:
        """Return the stored values of a single grey image, [H, W], or None where it is of another kind or too large.

        Raises:
            ValueError: the pixels are not what the header says.
        """
        rows, columns = self.dataset.get("Rows"), self.dataset.get("Columns")
        if not isinstance(rows, int) or not isinstance(columns, int) or "PixelData" not in self.dataset:
            return None
        single = (self.number("NumberOfFrames") or 1) == 1 and self.dataset.get("SamplesPerPixel", 1) == 1
        if (
            not single
            or not 0 < rows * columns * 4 <= _MOST_DECODED
            or self.text("PhotometricInterpretation")[:4] != "MONO"
        ):
            return None
        return self._native(rows, columns) if self.native else self._decoded(rows, columns)

    def _native(self, rows: int, columns: int) -> np.ndarray | None:
        bits, signed = self.dataset.get("BitsAllocated"), self.dataset.get("PixelRepresentation", 0)
        if bits not in (8, 16, 32):
            return None
        kind = np.dtype(f"{'>' if self.syntax == _BIG_ENDIAN else '<'}{'i' if signed else 'u'}{bits // 8}")
        values = np.frombuffer(self.dataset.PixelData, dtype=kind, count=rows * columns)
        return values.reshape(rows, columns)

    def _decoded(self, rows: int, columns: int) -> np.ndarray | None:
        try:
            with quiet():
                values = self.dataset.pixel_array
        except (NotImplementedError, RuntimeError):  # no decoder of this syntax is installed, or none could read it
            return None
        return values if values.shape == (rows, columns) else None


def load(path: Path) -> Loaded:
    """Read an object.

    Raises:
        Unreadable: no DICOM, cut off, nested or inflated beyond measure; says why, without a value of it.
    """
    content = path.read_bytes()
    with quiet():
        dataset = _read(content)
        try:
            pixels = dataset.get_item("PixelData")
            encoded = None if pixels is None else bytes(pixels.value)
        except Exception as error:  # noqa: BLE001 - as in _read
            raise Unreadable(f"its pixel data cannot be read ({type(error).__name__})") from None
    return Loaded(
        path=path,
        size=len(content),
        digest=hashlib.sha256(content).hexdigest(),
        pixel_digest=None if encoded is None else hashlib.sha256(encoded).hexdigest(),
        preamble=content[:PREAMBLE] if content[PREAMBLE : PREAMBLE + 4] == b"DICM" else b"",
        dataset=dataset,
    )


def text(dataset: Any, keyword: str) -> str:
    """Return an element's value as text without padding, "" where it is absent or empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom about values: rules say what they think of them, and its log lines would hold patients' data."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _many(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def _read(content: bytes) -> FileDataset:
    from pydicom import dcmread

    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        raise Unreadable("it is no DICOM file: 'DICM' does not stand after 128 bytes")
    try:
        _refuse_bomb(content)
        dataset = dcmread(io.BytesIO(content))
        len(dataset)
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever a malformed length leads to
        raise Unreadable(f"it is no DICOM file that can be read ({type(error).__name__})") from None
    if not len(dataset):
        raise Unreadable("it holds no element")
    return dataset


def _refuse_bomb(content: bytes) -> None:
    """Refuse a deflated data set that grows beyond measure, before anything inflates it whole."""
    if _DEFLATED.encode() not in content[PREAMBLE : PREAMBLE + 2048]:
        return

    start = PREAMBLE + 16
    start += int.from_bytes(content[start - 4 : start], "little")  # group length of the file meta information
    inflate, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, content[start:]
    while rest:
        size += len(inflate.decompress(rest, 1 << 20))
        rest = inflate.unconsumed_tail
        if size > MOST_INFLATED:
            raise Unreadable(f"it inflates to more than {MOST_INFLATED >> 20} MiB")
