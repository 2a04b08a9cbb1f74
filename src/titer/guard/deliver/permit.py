"""Whether an item may leave now, asked again before every try: a verdict may have changed since it was queued (G4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.engine import Row

from titer.guard.audit.chain import canonical
from titer.guard.deliver.queue import OBJECT
from titer.guard.store.tables import objects, outbox, verdicts

RELEASED = ("released", "accepted")
"""States of a verdict in which the model's result may leave."""
BOUND = ("input_digest", "model_digest", "bundle_version")
"""What a result is bound to."""
AI_RESULTS = ("structured-report", "capture", "diagnostic-report")
"""Kinds that tell what the model said; a task and an event tell only what the guard said."""
_KEPT_BACK = ("quarantined", "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why an item does not leave; `alert` where that should never happen."""

    reason: str
    alert: bool = False


def body_digest(body: Any) -> str:
    """Return the SHA-256 of a body's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def denied(connection: Connection, item: Row[Any]) -> Denial | None:
    """Return why an item of the outbox may not leave now, None where it may."""
    return _object_denied(connection, item) if item.kind == OBJECT else _result_denied(connection, item)


def _object_denied(connection: Connection, item: Row[Any]) -> Denial | None:
    same = (objects.c.sop_instance_uid == item.subject) & (objects.c.digest == item.digest)
    row = connection.execute(select(objects.c.state).where(same)).first()
    if row is None:
        return Denial(reason="no object of this UID and digest was received", alert=True)
    if row.state in _KEPT_BACK:
        return Denial(reason=f"the object is {row.state}")
    return None


def _result_denied(connection: Connection, item: Row[Any]) -> Denial | None:
    verdict = connection.execute(select(verdicts).where(verdicts.c.id == item.verdict_id)).first()
    if verdict is None:
        return Denial(reason="there is no verdict for this result", alert=True)
    if body_digest(item.body) != item.digest:
        return Denial(reason="the result was changed after it was queued", alert=True)
    return _unbound(item, verdict) or _outdated(connection, item, verdict)


def _unbound(item: Row[Any], verdict: Row[Any]) -> Denial | None:
    """Refuse what is not exactly the verdict's input, model and detectors, or is held."""
    wrong = [name for name in BOUND if item.body.get(name) != getattr(verdict, name)]
    if wrong:
        return Denial(reason=f"the result is not that of its verdict: {', '.join(wrong)} differ", alert=True)
    if item.kind not in AI_RESULTS:
        return None
    if verdict.model_digest is None or verdict.bundle_version is None:
        return Denial(reason="the verdict names no model and no detectors", alert=True)
    if verdict.state not in RELEASED:
        return Denial(reason=f"the verdict is {verdict.state}")
    return None


def _outdated(connection: Connection, item: Row[Any], verdict: Row[Any]) -> Denial | None:
    """Withhold what a later verdict or a later word on the same verdict has overtaken."""
    same = (verdicts.c.subject == verdict.subject) & (verdicts.c.subject_kind == verdict.subject_kind)
    newest = connection.execute(select(func.max(verdicts.c.revision)).where(same)).scalar_one()
    closes = item.kind == "task" and item.body["state"] != "held"
    if newest > verdict.revision and not closes:
        return Denial(reason=f"superseded by revision {newest} of the verdict")
    if item.kind not in ("diagnostic-report", "task"):
        return None
    later = (
        (outbox.c.destination == item.destination)
        & (outbox.c.kind == item.kind)
        & (outbox.c.verdict_id == item.verdict_id)
        & (outbox.c.id > item.id)
    )
    if connection.execute(select(outbox.c.id).where(later).limit(1)).first() is not None:
        return Denial(reason="superseded by a later state of the same resource")
    return None
