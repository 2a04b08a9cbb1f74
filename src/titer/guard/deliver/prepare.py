"""From an item of the outbox to what is sent: an object's own file, or a document written once and kept."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from titer.guard.context import Context
from titer.guard.deliver.queue import OBJECT
from titer.guard.deliver.sender import Changed, Parcel, file_digest
from titer.guard.store.tables import objects

FOLDER = "results"
DOCUMENTS = ("structured-report", "capture")
_ROOT = uuid.UUID("6f9d3c1e-6a0a-5d0c-9e0b-6f1c9f0b7a55")
"""Namespace of the UIDs and keys of what the guard writes (RFC 9562, version 5)."""


def key_of(*parts: str) -> str:
    """Return a UUID that follows from its parts: the same item has the same key each time it is sent."""
    return str(uuid.uuid5(_ROOT, "\x1f".join(parts)))


def uid_of(*parts: str) -> str:
    """Return a DICOM UID that follows from its parts (PS3.5, section B.2: 2.25 and a UUID)."""
    return f"2.25.{uuid.UUID(key_of(*parts)).int}"


def parcel(context: Context, connection: Connection, item: Row[Any]) -> Parcel:
    """Return what is sent for an item.

    Raises:
        Changed: an object's file, or the file of an image that a result names, is not the one that was received (G3).
    """
    key = key_of(item.kind, item.subject, item.digest)
    path = None
    if item.kind == OBJECT:
        path = _checked(Path(item.path), item.digest)
    elif item.kind in DOCUMENTS:
        path = _document(context, connection, item)
    return Parcel(kind=item.kind, subject=item.subject, key=key, path=path, body=item.body)


def unchanged(item: Row[Any], sent: Parcel) -> None:
    """Look again after an object was sent.

    Raises:
        Changed: its file is no longer what was received.
    """
    if item.kind == OBJECT and sent.path is not None:
        _checked(sent.path, item.digest)


def _checked(path: Path, digest: str) -> Path:
    if file_digest(path) != digest:
        raise Changed("the file is not the one that was received: its digest differs")
    return path


def _document(context: Context, connection: Connection, item: Row[Any]) -> Path:
    """Write a document if it is not there yet; what was written once is sent again as it is."""
    from titer.guard.deliver.capture import capture
    from titer.guard.deliver.structured_report import structured_report

    uid = uid_of(item.kind, item.digest)
    folder = context.home.root / FOLDER
    path = folder / f"{uid}.dcm"
    if path.exists():
        return path
    images = [_checked(_image(connection, *one), one[2]) for one in item.body["images"]]
    folder.mkdir(mode=0o700, exist_ok=True)
    part = folder / f"{uid}.{threading.get_ident()}.part"  # several destinations may write the same document at once
    body: Mapping[str, Any] = item.body
    if item.kind == "capture":
        overlay = _checked(Path(item.path), body["overlay"]["digest"])
        capture(body, images[0], overlay, uid).save_as(part, enforce_file_format=True)
    else:
        structured_report(body, images, uid).save_as(part, enforce_file_format=True)
    _settle(part, path)
    return path


def _image(connection: Connection, sop_instance_uid: str, _sop_class_uid: str, digest: str) -> Path:
    same = (objects.c.sop_instance_uid == sop_instance_uid) & (objects.c.digest == digest)
    found = connection.execute(select(objects.c.path).where(same)).scalar()
    if found is None:
        raise Changed("an image that the result names is not there any more")
    return Path(found)


def _settle(part: Path, path: Path) -> None:
    """Make a file durable before it has its name: what is sent after a crash is what was sent before it."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
