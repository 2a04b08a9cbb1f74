"""What the guard's parts hand to each other: an object that came in, what was found about it, what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """A verdict, mildest first: what happens to the images and to the result of the model.

    PASS: both go on. FLAG: images go on, the result is held for review. BLOCK: the images are quarantined as well.
    """

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FLAG = "FLAG"
    BLOCK = "BLOCK"


_SEVERITY = (Outcome.PASS, Outcome.FLAG, Outcome.BLOCK)


def severest(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the severest of some outcomes; PASS of none."""
    return max(outcomes, key=_SEVERITY.index, default=Outcome.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a rule or a detector noticed.

    `reason` is a sentence for people and holds no patient data, as it goes to logs and error comments; `evidence` are
    JSON values for the reviewer: attributes, expected and found, scores and thresholds. `threats` are MITRE ATLAS or
    NIST AI 100-2 ids.
    """

    rule: str
    outcome: Outcome
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    threats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An object as it came in; its bytes stand unchanged under `path` and are durable.

    `digest` is the SHA-256 of the file's bytes, `pixel_digest` that of the encoded pixel data (None where it has none).
    `patient` is a keyed digest of patient id and issuer, so that identities can be compared and are not stored.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    pixel_digest: str | None
    patient: str | None
    modality: str
    size: int
    path: Path
    route: str
    calling_ae: str
    peer: str
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the guard decided about one input, bound to exactly that input, model and bundle of detectors (G4).

    `subject` is a series instance UID, a SOP instance UID, or the id of a request of the inference API; `input_digest`
    the SHA-256 of what was judged (of a series: of its objects' digests in slice order). `scores` are the detectors'
    with their thresholds: {detector: {"score": s, "threshold": t}}.
    """

    subject_kind: str
    subject: str
    input_digest: str
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    model_digest: str | None = None
    bundle_version: str | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
