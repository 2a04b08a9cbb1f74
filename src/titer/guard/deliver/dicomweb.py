"""STOW-RS (PS3.18, section 10.5): a file is one part of the request, byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from titer.guard.deliver.http import Client, accepted
from titer.guard.deliver.sender import Changed, Parcel, Refused, Unreachable

_BLOCK = 1 << 18
_FAILED, _REFERENCED, _REASON, _WARNING = "00081198", "00081199", "00081197", "00081196"
_LATER = range(0xA700, 0xA800)
_CONFLICT = 409


class StowSender:
    """Sends to a DICOMweb server: `address` is the URL under which `/studies` stands."""

    def __init__(self, client: Client) -> None:
        """Take a client of the destination."""
        self._client = client

    def send(self, parcel: Parcel) -> str:
        """Send a file; returns a warning of the server's, "" where it had none."""
        assert parcel.path is not None
        boundary = hashlib.sha256(parcel.key.encode()).hexdigest()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        status, body = self._client.send("POST", "/studies", _parts(parcel.path, boundary), headers)
        if status != _CONFLICT:
            accepted(status)
        return _judged(_response(body), status)

    def rest(self) -> None:
        """Idle connections close by themselves."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _parts(path: Path, boundary: str) -> Iterator[bytes]:
    yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise Changed(f"the file of this item cannot be read: {error.strerror}") from None
    yield f"\r\n--{boundary}--\r\n".encode()


def _response(body: bytes) -> dict[str, Any]:
    """Return the response's data set (PS3.18, annex I); an empty one where the server gave another kind of answer."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, dict) else {}


def _judged(response: dict[str, Any], status: int) -> str:
    failures = [code for item in _items(response, _FAILED) if (code := _code(item, _REASON)) is not None]
    if any(code in _LATER for code in failures):
        raise Unreachable(f"failure reason 0x{failures[0]:04X}: out of resources")
    if failures:
        raise Refused(f"failure reason 0x{failures[0]:04X}")
    accepted(status)
    warnings = [code for item in _items(response, _REFERENCED) if (code := _code(item, _WARNING))]
    return f"warning reason 0x{warnings[0]:04X}" if warnings else ""


def _items(response: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = response.get(tag, {})
    values = element.get("Value", []) if isinstance(element, dict) else []
    return [item for item in values if isinstance(item, dict)]


def _code(item: dict[str, Any], tag: str) -> int | None:
    values = item.get(tag, {}).get("Value", [])
    return int(values[0]) if values and str(values[0]).isdigit() else None
