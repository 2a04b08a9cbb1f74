"""Receipts from the command line: made by a guard's key, and verified by its public half alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from titer.core.errors import SpecError
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.checks.receipts import problems, read_receipt, study_receipt
from titer.guard.context import Context
from titer.guard.home import Home
from titer.guard.keys import VERIFYING, read


def made(context: Context, study: str) -> dict[str, Any]:
    """Return the signed receipt of a study, once the audit row that it was read is durable.

    Raises:
        SpecError: nothing of this study was received.
    """
    at = context.clock()
    with context.engine.connect() as connection:
        found = study_receipt(connection, context.signer, study, at)
    event = audit_event(
        Kind.ACCESSED, action="R", agent="command line", at=at, what={"study": study}, detail={"what": "receipt"}
    )
    context.journal.write(lambda connection: chain.append(connection, event, at))
    return found


def wrong(home: Home, study: str, file: Path, files: Iterable[Path] = ()) -> list[str]:
    """Return what is wrong with a receipt that was saved: its signature, its study, and files it should be of.

    Needs `keys/verifying.pem` of the guard alone: neither its database nor its settings.

    Raises:
        SpecError: a file cannot be read, or is no receipt.
    """
    public = read(home.keys / VERIFYING)
    try:
        manifest = read_receipt(file)
        found = problems(manifest, public, files)
    except OSError as error:
        raise SpecError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, json.JSONDecodeError):
        raise SpecError(f"{file} is no receipt") from None
    if not found and manifest.get("study_instance_uid") != study:
        return [f"the receipt is not of study {study}"]
    return found
