"""FHIR R4 resources of a verdict: the model's result as a DiagnosticReport, a held one as a Task for a reviewer.

Both name the study by its UID (ImagingStudy by `urn:dicom:uid`) and no patient: the server knows whose study it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

SYSTEM = "https://github.com/titer/titer/verdict"
_PRIORITIES = ("routine", "urgent", "asap", "stat")
_TASKS = {
    "held": "requested",
    "accepted": "completed",
    "overridden": "completed",
    "rejected": "rejected",
    "superseded": "cancelled",
}
_ID = 40


def resource(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resource of an outbox item's body, checked against FHIR R4B's definition.

    Args:
        kind: diagnostic-report or task.
        body: as `results.release` and `results.announce` queue it.
    """
    from fhir.resources.R4B.diagnosticreport import DiagnosticReport
    from fhir.resources.R4B.task import Task

    made = _report(body) if kind == "diagnostic-report" else _task(body)
    (DiagnosticReport if kind == "diagnostic-report" else Task).model_validate(made)
    return made


def resource_id(kind: str, body: Mapping[str, Any]) -> str:
    """Return an id that is the same for every state of the same verdict, 64 characters at most."""
    bound = "\x1f".join(str(body[name]) for name in ("subject", "revision", "input_digest", "model_digest"))
    return f"titer-{hashlib.sha256(f'{kind}|{bound}'.encode()).hexdigest()[:_ID]}"


def conclusion(body: Mapping[str, Any]) -> str:
    """Return what model and guard said, in one line."""
    result = body["result"] or {}
    said = str(result.get("class", "no class"))
    chance = result.get("probability")
    if chance is not None:
        said += f" (probability {chance:.3f})"
    reasons = "; ".join(str(one["reason"]) for one in body["findings"])
    return f"AI result: {said}. Guard's verdict: {body['outcome']}{': ' + reasons if reasons else ''}"


def _report(body: Mapping[str, Any]) -> dict[str, Any]:
    at = _instant(body["created_at"])
    return {
        "resourceType": "DiagnosticReport",
        **_names("diagnostic-report", body),
        "status": "final" if body["state"] == "accepted" else "preliminary",
        "category": [_concept("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        "code": _concept("http://loinc.org", "18748-4", "Diagnostic imaging study"),
        "effectiveDateTime": at,
        "issued": at,
        "imagingStudy": [_study(body)],
        "contained": [_algorithm(body), _verdict(body)],
        "result": [{"reference": "#verdict"}],
        "conclusion": conclusion(body),
    }


def _algorithm(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "id": "algorithm",
        "identifier": [{"system": "urn:sha256", "value": body["model_digest"]}],
        "deviceName": [{"name": body["model"] or "model", "type": "model-name"}],
        "version": [{"value": body["bundle_version"]}],
    }


def _verdict(body: Mapping[str, Any]) -> dict[str, Any]:
    scores = [
        {"code": {"text": f"detector {name}"}, "valueString": _score(score)} for name, score in body["scores"].items()
    ]
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": "verdict",
        "status": "final" if body["state"] == "accepted" else "preliminary",
        "code": {"text": "Guard's verdict on the input of the AI model"},
        "valueCodeableConcept": {"coding": [{"system": SYSTEM, "code": body["outcome"]}]},
        "device": {"reference": "#algorithm"},
    }
    return {**made, "component": scores} if scores else made


def _score(score: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in score.items())


def _task(body: Mapping[str, Any]) -> dict[str, Any]:
    at = _instant(body["created_at"])
    made: dict[str, Any] = {
        "resourceType": "Task",
        **_names("task", body),
        "status": _TASKS.get(body["state"], "completed"),
        "intent": "order",
        "priority": _PRIORITIES[min(max(int(body["urgency"]), 0), len(_PRIORITIES) - 1)],
        "code": _concept("http://hl7.org/fhir/CodeSystem/task-code", "approve", "Activate/approve the focal resource"),
        "description": f"Review the guard's verdict {body['verdict']} ({body['outcome']})",
        "authoredOn": at,
        "lastModified": at,
    }
    if body["study_instance_uid"]:
        made["focus"] = _study(body)
    if body["findings"]:
        made["reasonCode"] = {"text": "; ".join(str(one["reason"]) for one in body["findings"])}
    return made


def _names(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    name = resource_id(kind, body)
    identifier = {"system": SYSTEM, "value": name}
    return {"id": name, "identifier": [identifier]}


def _study(body: Mapping[str, Any]) -> dict[str, Any]:
    uid = body["study_instance_uid"]
    return {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
