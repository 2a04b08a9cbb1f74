"""Receipts: a signed statement of what was received, when, and what was decided, that anyone can verify without us.

Scanners rarely sign what they send. From here on the guard's own signature (Ed25519, RFC 8032) takes that place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from titer.guard.audit.chain import canonical
from titer.guard.keys import Signer, signed
from titer.guard.store.tables import objects, verdicts

VERSION = 1
_BLOCK = 1 << 20


def receipt(connection: Connection, signer: Signer, series_uid: str, at: float) -> dict[str, Any]:
    """Return the signed receipt of a series: each object's UIDs, digests, size and time, and the verdicts so far.

    It holds no patient data. `signature` is over the canonical JSON of all the rest.

    Args:
        connection: to read by.
        signer: the guard's key.
        series_uid: the series; one that is not known gives a receipt of no objects.
        at: now, seconds UTC.
    """
    own = (
        select(objects)
        .where(objects.c.series_instance_uid == series_uid)
        .order_by(objects.c.sop_instance_uid, objects.c.id)
    )
    rows = connection.execute(own).all()
    subjects = [series_uid, *(row.sop_instance_uid for row in rows)]
    content = {
        "version": VERSION,
        "issued": _told(at),
        "series_instance_uid": series_uid,
        "objects": [_object(row) for row in rows],
        "verdicts": [_verdict(row) for row in _verdicts(connection, subjects)],
    }
    return {**content, "signature": signer.sign(canonical(content).encode())}


def problems(manifest: Mapping[str, Any], public: bytes, files: Iterable[Path] = ()) -> list[str]:
    """Return what is wrong with a receipt and with files that it should be of; nothing where all is well.

    Works offline: it needs the receipt, the guard's verifying key and the files.

    Args:
        manifest: the receipt, as `json.loads` reads it.
        public: the verifying key, PEM.
        files: files that are said to be what was received.
    """
    content = {key: value for key, value in manifest.items() if key != "signature"}
    try:
        whole = signed(public, canonical(content).encode(), str(manifest.get("signature", "")))
    except ValueError:
        whole = False
    if not whole:
        return ["the receipt is not signed by this guard's key, or was changed"]
    if content.get("version") != VERSION:
        return [f"the receipt has version {content.get('version')!r}: allowed is {VERSION}"]
    known = {str(one["sha256"]) for one in content["objects"]}
    return [f"{path.name} is not what was received" for path in files if _sha256(path) not in known]


def read_receipt(path: Path) -> dict[str, Any]:
    """Read a receipt that was saved as JSON; ValueError where it is none."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no receipt")  # noqa: TRY004 - the file's content, not an argument's type
    return found


def _object(row: Any) -> dict[str, Any]:
    return {
        "sop_instance_uid": row.sop_instance_uid,
        "sop_class_uid": row.sop_class_uid,
        "sha256": row.digest,
        "pixels_sha256": row.pixel_digest,
        "bytes": row.size,
        "received": _told(row.received_at),
        "from": row.calling_ae,
        "state": row.state,
    }


def _verdicts(connection: Connection, subjects: list[str]) -> list[Any]:
    found = select(verdicts).where(verdicts.c.subject.in_(subjects)).order_by(verdicts.c.id)
    return list(connection.execute(found).all())


def _verdict(row: Any) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "revision": row.revision,
        "input_sha256": row.input_digest,
        "outcome": row.outcome,
        "state": row.state,
        "decided": _told(row.created_at),
    }


def _told(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
