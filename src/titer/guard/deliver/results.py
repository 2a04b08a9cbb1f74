"""What a verdict sends: the model's result where it is released, a request for review where it is held.

Both write to the outbox in the transaction of the decision. What is queued is a body of plain facts; reports and
resources are written from it when they are sent, always the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from titer.core.errors import TiterError
from titer.guard.context import Context
from titer.guard.deliver.permit import BOUND, RELEASED, body_digest
from titer.guard.deliver.queue import Item, enqueue
from titer.guard.settings import DestinationSettings
from titer.guard.store.tables import findings, objects, series, verdicts

_IMAGES = ("dicom", "dicomweb")
_JUDGED, _ACCEPTED = "judged", "accepted"


class NotReleased(TiterError):  # noqa: N818 - says what happened
    """The verdict holds its result back, or is not there: nothing is queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """An explanation to send with a result: a PNG overlay of a frame of one image, and the SHA-256 of its file."""

    path: Path
    sop_instance_uid: str
    digest: str
    frame: int = 0
    method: str = "gradcam"


def release(context: Context, connection: Connection, verdict_id: int, heatmaps: Sequence[HeatMap] = ()) -> int:
    """Queue a verdict's result for its route's destinations, in the caller's transaction; ring `BELL` after the commit.

    Application entities and DICOMweb servers get a structured report, and heat maps as captures; FHIR servers a
    DiagnosticReport, preliminary until a person accepted it, which completes the Task that asked for it as well;
    webhooks an event. A verdict without a model's result sends events only.

    Returns:
        How many items were queued.

    Raises:
        NotReleased: there is no such verdict, or its state is neither released nor accepted (G4).
    """
    verdict = _verdict(connection, verdict_id)
    if verdict.state not in RELEASED:
        raise NotReleased(f"verdict {verdict_id} is {verdict.state}: its result stays here")
    facts = _facts(context, connection, verdict)
    whole = facts["result"] is not None and all(facts[name] is not None for name in BOUND)
    items: list[Item] = []
    for destination in _destinations(context, verdict.route):
        if destination.kind == "webhook":
            items.append(_item(destination, "event", facts))
        elif whole and destination.kind == "fhir":
            items.append(_item(destination, "diagnostic-report", facts))
            if verdict.state == _ACCEPTED:
                items.append(_item(destination, "task", {**facts, "result": None}))
        elif whole and verdict.subject_kind == "series":
            items += _documents(connection, destination, facts, heatmaps)
    return _queued(context, connection, items)


def captures(context: Context, connection: Connection, verdict_id: int, heatmaps: Sequence[HeatMap]) -> int:
    """Queue heat maps that were made after their result was released, in the caller's transaction.

    Returns:
        How many items were queued.

    Raises:
        NotReleased: there is no such verdict, or its state is neither released nor accepted (G4).
    """
    verdict = _verdict(connection, verdict_id)
    if verdict.state not in RELEASED:
        raise NotReleased(f"verdict {verdict_id} is {verdict.state}: its heat maps stay here")
    facts = _facts(context, connection, verdict)
    if facts["result"] is None or any(facts[name] is None for name in BOUND) or verdict.subject_kind != "series":
        return 0
    images = _images(connection, verdict.subject)
    destinations = [one for one in _destinations(context, verdict.route) if one.kind in _IMAGES]
    items = [item for one in destinations for item in _captures(one, facts, images, heatmaps)]
    return _queued(context, connection, items)


def announce(context: Context, connection: Connection, verdict_id: int) -> int:
    """Queue word of a verdict's state, without the model's result: a FHIR Task, and events of webhooks.

    A held verdict asks for a review; called again after the decision, the same Task is completed or rejected.

    Returns:
        How many items were queued.

    Raises:
        NotReleased: there is no such verdict.
    """
    verdict = _verdict(connection, verdict_id)
    facts = {**_facts(context, connection, verdict), "result": None}
    kinds = {"fhir": "task", "webhook": "event"}
    items = [
        _item(destination, kinds[destination.kind], facts)
        for destination in _destinations(context, verdict.route)
        if destination.kind in kinds
    ]
    return _queued(context, connection, items)


def _verdict(connection: Connection, verdict_id: int) -> Row[Any]:
    row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id)).first()
    if row is None:
        raise NotReleased(f"there is no verdict {verdict_id}")
    return row


def _destinations(context: Context, route_name: str) -> list[DestinationSettings]:
    names = {name for route in context.settings.routes if route.name == route_name for name in route.results}
    return [one for one in context.settings.destinations if one.name in names]


def _facts(context: Context, connection: Connection, verdict: Row[Any]) -> dict[str, Any]:
    """Return what every kind of result is written from; evidence stays here, as it may name a patient's attributes."""
    found = connection.execute(select(findings).where(findings.c.verdict_id == verdict.id).order_by(findings.c.id))
    model = next((route.model for route in context.settings.routes if route.name == verdict.route), None)
    told = ("subject_kind", "subject", "revision", "route", "outcome", "state", "urgency", "scores", "result")
    return {
        "verdict": verdict.id,
        **{name: getattr(verdict, name) for name in (*told, *BOUND, "created_at")},
        "model": model,
        "study_instance_uid": _study(connection, verdict),
        "findings": [{"rule": one.rule, "outcome": one.outcome, "reason": one.reason} for one in found],
    }


def _study(connection: Connection, verdict: Row[Any]) -> str | None:
    if verdict.subject_kind == "series":
        wanted = select(series.c.study_instance_uid).where(series.c.series_instance_uid == verdict.subject)
    else:
        wanted = select(objects.c.study_instance_uid).where(objects.c.sop_instance_uid == verdict.subject)
    uid: str | None = connection.execute(wanted.limit(1)).scalar()
    return uid


def _documents(
    connection: Connection, destination: DestinationSettings, facts: Mapping[str, Any], heatmaps: Sequence[HeatMap]
) -> list[Item]:
    """Return the structured report, which names each image with its digest, and a capture of each heat map."""
    images = _images(connection, facts["subject"])
    if destination.kind not in _IMAGES or not images:
        return []
    report = _item(destination, "structured-report", {**facts, "images": images})
    return [report, *_captures(destination, facts, images, heatmaps)]


def _images(connection: Connection, series_uid: str) -> list[list[str]]:
    """Return UID, class and digest of each image that was judged."""
    held = connection.execute(
        select(objects.c.sop_instance_uid, objects.c.sop_class_uid, objects.c.digest)
        .where(objects.c.series_instance_uid == series_uid, objects.c.state == _JUDGED)
        .order_by(objects.c.id)
    ).all()
    return [list(one) for one in held]


def _captures(
    destination: DestinationSettings,
    facts: Mapping[str, Any],
    images: Sequence[Sequence[str]],
    heatmaps: Sequence[HeatMap],
) -> list[Item]:
    """Return a capture of each heat map of an image that was judged; its body pins the picture's own digest."""
    by_uid = {one[0]: list(one) for one in images}
    return [
        _item(destination, "capture", {
            **facts, "images": [by_uid[one.sop_instance_uid]],
            "overlay": {"digest": one.digest, "frame": one.frame, "method": one.method, "number": number},
        }, one.path)
        for number, one in enumerate(heatmaps, start=1)
        if one.sop_instance_uid in by_uid
    ]  # fmt: skip


def _item(destination: DestinationSettings, kind: str, facts: Mapping[str, Any], path: Path | None = None) -> Item:
    return Item(
        destination=destination.name,
        kind=kind,
        subject=facts["subject"],
        digest=body_digest(facts),
        body=facts,
        path=None if path is None else str(path),
        verdict_id=facts["verdict"],
    )


def _queued(context: Context, connection: Connection, items: Sequence[Item]) -> int:
    at = context.clock()
    return sum(enqueue(connection, item, at) for item in items)
