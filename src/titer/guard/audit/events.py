"""Audit events as FHIR R4 AuditEvent resources, the form in which the chain stores them.

Codes are DICOM's (PS3.16, CID 400 and 401; system http://dicom.nema.org/resources/ontology/DCM). No event holds a
patient's name or id: an object is named by its UIDs and digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

DCM = "http://dicom.nema.org/resources/ontology/DCM"


class Kind(Enum):
    """What happened: DICOM's code and its meaning."""

    APPLICATION = ("110100", "Application Activity")
    AUDIT_LOG_USED = ("110101", "Audit Log Used")
    ACCESSED = ("110103", "DICOM Instances Accessed")
    TRANSFERRED = ("110104", "DICOM Instances Transferred")
    EXPORT = ("110106", "Export")
    SECURITY_ALERT = ("110113", "Security Alert")
    USER_AUTHENTICATION = ("110114", "User Authentication")
    QUERY = ("110112", "Query")
    DELETED = ("110105", "DICOM Study Deleted")


class Result(Enum):
    """How it ended: the codes of FHIR's AuditEvent.outcome."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


def audit_event(
    kind: Kind,
    *,
    action: str,
    agent: str,
    at: float,
    result: Result = Result.SUCCESS,
    what: Mapping[str, str] | None = None,
    detail: Mapping[str, str] | None = None,
    network: str | None = None,
) -> dict[str, Any]:
    """Build an AuditEvent (FHIR R4; IHE BALP).

    Args:
        kind: what happened.
        action: C created, R read, U changed, D deleted, E executed.
        agent: account, AE title or `guard`: who did it.
        at: seconds UTC.
        result: how it ended.
        what: identifiers of what it was done to, for instance {"SOPInstanceUID": "1.2..."}.
        detail: whatever else a reader of the log must know; no patient data.
        network: address that it came from.
    """
    code, display = kind.value
    who: dict[str, Any] = {"who": {"identifier": {"value": agent}}, "requestor": agent != "guard"}
    if network:
        who["network"] = {"address": network, "type": "2"}
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": {"system": DCM, "code": code, "display": display},
        "action": action,
        "recorded": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "outcome": result.value,
        "agent": [who],
        "source": {"observer": {"display": "Titer guard"}},
    }
    if what or detail:
        event["entity"] = [_entity(what or {}, detail or {})]
    return event


def _entity(what: Mapping[str, str], detail: Mapping[str, str]) -> dict[str, Any]:
    entity: dict[str, Any] = {}
    if what:
        entity["what"] = {"identifier": {"value": " ".join(f"{name}={value}" for name, value in what.items())}}
    if detail:
        entity["detail"] = [{"type": name, "valueString": value} for name, value in detail.items()]
    return entity
