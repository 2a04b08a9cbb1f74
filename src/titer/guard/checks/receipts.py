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

from titer.core.errors import SpecError
from titer.guard.audit.chain import canonical
from titer.guard.keys import Signer, signed
from titer.guard.store.tables import objects, verdicts

VERSION = 1
_BLOCK = 1 << 20
_AT_ONCE = 500


def receipt(connection: Connection, signer: Signer, series_uid: str, at: float) -> dict[str, Any]:
    """Return the signed receipt of a series: each object's UIDs, digests, size and time, and the verdicts so far.

    It holds no patient data. `signature` is over the canonical JSON of all the rest.

    Args:
        connection: to read by.
        signer: the guard's key.
        series_uid: the series; one that is not known gives a receipt of no objects.
        at: now, seconds UTC.
    """
    return _signed({"version": VERSION, "issued": _told(at), **_series(connection, series_uid)}, signer)


def study_receipt(connection: Connection, signer: Signer, study_uid: str, at: float) -> dict[str, Any]:
    """Return the signed receipt of a study: what `receipt` says, for each of its series.

    Raises:
        SpecError: nothing of this study was received.
    """
    own = select(objects.c.series_instance_uid).where(objects.c.study_instance_uid == study_uid).distinct()
    uids = sorted(connection.execute(own).scalars())
    if not uids:
        raise SpecError(f"study = {study_uid!r}: nothing of it was received")
    content = {
        "version": VERSION,
        "issued": _told(at),
        "study_instance_uid": study_uid,
        "series": [_series(connection, uid) for uid in uids],
    }
    return _signed(content, signer)


def problems(manifest: Mapping[str, Any], public: bytes, files: Iterable[Path] = ()) -> list[str]:
    """Return what is wrong with a receipt and with files that it should be of; nothing where all is well.

    Works offline: it needs the receipt, the guard's verifying key and the files.

    Args:
        manifest: the receipt of a series or a study, as `json.loads` reads it.
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
    parts = content.get("series", [content])
    known = {str(one["sha256"]) for part in parts for one in part["objects"]}
    return [f"{path.name} is not what was received" for path in files if _sha256(path) not in known]


def read_receipt(path: Path) -> dict[str, Any]:
    """Read a receipt that was saved as JSON; ValueError where it is none."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no receipt")  # noqa: TRY004 - the file's content, not an argument's type
    return found


def _signed(content: dict[str, Any], signer: Signer) -> dict[str, Any]:
    return {**content, "signature": signer.sign(canonical(content).encode())}


def _series(connection: Connection, uid: str) -> dict[str, Any]:
    own = select(objects).where(objects.c.series_instance_uid == uid).order_by(objects.c.sop_instance_uid, objects.c.id)
    rows = connection.execute(own).all()
    subjects = [uid, *(row.sop_instance_uid for row in rows)]
    return {
        "series_instance_uid": uid,
        "objects": [_object(row) for row in rows],
        "verdicts": [_verdict(row) for row in _verdicts(connection, subjects)],
    }


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
    found: list[Any] = []
    for start in range(0, len(subjects), _AT_ONCE):  # SQLite takes a limited number of values
        part = subjects[start : start + _AT_ONCE]
        found += connection.execute(select(verdicts).where(verdicts.c.subject.in_(part))).all()
    return sorted(found, key=lambda row: row.id)


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
