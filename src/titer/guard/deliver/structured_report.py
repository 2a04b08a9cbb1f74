"""The model's result as a DICOM structured report (PS3.16, TID 1500), with the guard's verdict and what it rests on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from titer.guard.deliver.headers import MANUFACTURER, finish, header
from titer.guard.deliver.prepare import uid_of

SCHEME = "99TITER"
"""Our own codes: none of DICOM's says what a guard decided. They are listed in docs/reference/guard-deliver.md."""
VERDICT = ("verdict", "Guard's verdict on the input of the algorithm")
OUTCOMES = {
    "PASS": ("pass", "Input passed every check"),
    "FLAG": ("flag", "Input flagged, result accepted by a reviewer"),
    "BLOCK": ("block", "Input blocked, result accepted by two reviewers"),
}
_LONGEST_MEANING, _LONGEST_VALUE = 64, 16
_SERIES_NUMBER = 9901


def structured_report(body: Mapping[str, Any], images: Sequence[Path], uid: str) -> Dataset:
    """Write a Comprehensive SR about a series.

    Args:
        body: facts of the verdict, as `results.release` queues them.
        images: files of the images that were judged, at least one.
        uid: SOP instance UID of the report.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of what it takes over from the images
        evidence = [header(path) for path in images]
        report = sr.ComprehensiveSR(
            evidence=evidence,
            content=_content(body, evidence, uid)[0],
            series_instance_uid=uid_of("series", uid),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=body["state"] == "accepted",
        )
        finish(report, evidence[0], body)
    report.ManufacturerModelName = "Titer guard"
    report.SoftwareVersions = version("titer")
    report.SeriesDescription = "AI result with the guard's verdict"
    report.CodingSchemeIdentificationSequence = [_scheme()]
    return report


def code(value: str, meaning: str) -> sr.CodedConcept:
    """Return a code of our own scheme."""
    return sr.CodedConcept(value=value, scheme_designator=SCHEME, meaning=meaning[:_LONGEST_MEANING])


def _scheme() -> Dataset:
    """Say what our codes' scheme is (PS3.3, table C.12-1)."""
    made = Dataset()
    made.CodingSchemeDesignator = SCHEME
    made.CodingSchemeName = "Titer guard verdicts"
    made.CodingSchemeResponsibleOrganization = MANUFACTURER
    return made


def _content(body: Mapping[str, Any], evidence: Sequence[Dataset], uid: str) -> sr.MeasurementReport:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", str(body["model_digest"])), name="Titer guard", manufacturer_name=MANUFACTURER
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(body, evidence, uid)],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _group(body: Mapping[str, Any], evidence: Sequence[Dataset], uid: str) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return the one group of the report: algorithm, images, verdict, result, findings and scores."""
    made = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid_of("tracking", uid), identifier=f"verdict {body['verdict']}"),
        finding_type=code("ai-result", "Result of an AI algorithm"),
        algorithm_id=_algorithm(body),
        source_images=[sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID) for one in evidence],
        qualitative_evaluations=_evaluations(body),
        measurements=_measurements(body) or None,
    )
    made[0].ContentSequence.extend(_comment(finding) for finding in body["findings"])
    return made


def _comment(finding: Mapping[str, str]) -> sr.TextContentItem:
    """Return a finding's whole reason, for which a code's meaning is too short (TID 1501 may be extended)."""
    return sr.TextContentItem(
        name=codes.DCM.Comment,
        value=f"{finding['rule']}: {finding['reason']}",
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )


def _algorithm(body: Mapping[str, Any]) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=body["model"] or "model",
        version=body["bundle_version"],
        parameters=[
            f"model SHA-256 {body['model_digest']}",
            f"detector bundle {body['bundle_version']}",
            f"input SHA-256 {body['input_digest']}",
        ],
    )


def _evaluations(body: Mapping[str, Any]) -> list[sr.QualitativeEvaluation]:
    made = [sr.QualitativeEvaluation(name=code(*VERDICT), value=code(*OUTCOMES[body["outcome"]]))]
    said = str((body["result"] or {}).get("class", ""))
    if said:
        made.append(sr.QualitativeEvaluation(name=code("class", "Predicted class"), value=code(_short(said), said)))
    for finding in body["findings"]:
        name = code("finding", "Finding of the guard")
        made.append(sr.QualitativeEvaluation(name=name, value=code(_short(finding["rule"]), finding["rule"])))
    return made


def _measurements(body: Mapping[str, Any]) -> list[sr.Measurement]:
    made = []
    chance = (body["result"] or {}).get("probability")
    if chance is not None:
        made.append(_measurement("probability", "Probability of the predicted class", chance))
    for name, score in body["scores"].items():
        made.append(_measurement(_short(name), f"Score of detector {name}", score["score"]))
    return made


def _measurement(value: str, meaning: str, number: float) -> sr.Measurement:
    return sr.Measurement(name=code(value, meaning), value=float(number), unit=codes.UCUM.NoUnits)


def _short(name: str) -> str:
    """Return a code value: 16 characters at most (PS3.5, VR SH), no backslash, and another one for another name."""
    if len(name) <= _LONGEST_VALUE and "\\" not in name:
        return name
    plain = name.replace("\\", "-")
    return f"{plain[:9]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
