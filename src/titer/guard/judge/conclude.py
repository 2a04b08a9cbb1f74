"""From findings and answers to a verdict: pure, so that what follows from what can be read and tested.

Whatever is missing, broken or no number is a finding of FLAG with its reason: nothing that failed ever passes (G7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from titer.guard.judge.messages import Answer, Facts
from titer.guard.records import Finding, Outcome, Verdict, severest

EVASION = ("AML.T0015", "NISTAML.022")
_RULES = {"detector": "detector", "failed": "judge-failed", "number": "not-a-number", "unread": "input-unread"}

_MILD = (_RULES["failed"], "threat-level")
"""Rules that hold a result, and say nothing against its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What model and detectors say of one subject, as findings, scores and a result."""

    findings: tuple[Finding, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    result: dict[str, Any] | None = None


def failed(reason: str) -> Finding:
    """Return the finding for a model or detector that gave no answer."""
    return Finding(rule=_RULES["failed"], outcome=Outcome.FLAG, reason=f"not judged: {reason}")


def opinion(answer: Answer, facts: Facts, *, infer: bool, detect: bool) -> Opinion:
    """Return what follows from an answer.

    Args:
        answer: of the worker, on all inputs of the subject.
        facts: the bundle's.
        infer: whether the model's result was wanted.
        detect: whether the detectors were to look.
    """
    found = [*_unread(answer)]
    scores: dict[str, dict[str, float]] = {}
    if detect:
        found += _missing(answer, facts)
        for label, values in answer.scores.items():
            scored, more = _scored(label, values, answer)
            found += more
            if scored is not None:
                scores[label] = scored
    result, more = _result(answer, facts) if infer else (None, [])
    return Opinion(findings=(*found, *more), scores=scores, result=result)


def verdict(
    kind: str, subject: str, input_digest: str, facts: Facts | None, findings: Sequence[Finding], said: Opinion
) -> Verdict:
    """Put a verdict together: as severe as the severest of its findings."""
    every = (*findings, *said.findings)
    return Verdict(
        subject_kind=kind,
        subject=subject,
        input_digest=input_digest,
        outcome=severest(one.outcome for one in every),
        findings=every,
        model_digest=None if facts is None else facts.model_digest,
        bundle_version=None if facts is None else facts.bundle_version,
        scores=said.scores,
        result=said.result,
    )


def urgency(findings: Sequence[Finding]) -> int:
    """Return how soon a person should look: 0 not at all, 1 what failed, 2 what was flagged, 3 what was blocked.

    What only a threat level holds is as urgent as what failed: nothing speaks against the input itself.
    """
    outcome = severest(one.outcome for one in findings)
    if outcome is not Outcome.FLAG:
        return 3 if outcome is Outcome.BLOCK else 0
    serious = [one for one in findings if one.outcome is Outcome.FLAG and one.rule not in _MILD]
    return 2 if serious else 1


def _unread(answer: Answer) -> list[Finding]:
    return [
        Finding(
            rule=_RULES["unread"],
            outcome=Outcome.FLAG,
            reason=f"image {place + 1} of {answer.inputs} was not judged: {reason}",
            evidence={"index": place},
        )
        for place, reason in sorted(answer.unread.items())
    ]


def _missing(answer: Answer, facts: Facts) -> list[Finding]:
    """Flag what detectors did not look at: none of it may pass unseen."""
    silent = [label for label in facts.detectors if label not in answer.scores]
    read = [place for place in range(answer.inputs) if place not in answer.unread]
    unseen = [place for place in read if any(values[place] is None for values in answer.scores.values() if values)]
    found = []
    if silent and read:
        found.append(failed(f"no score of {', '.join(silent)}"))
    if unseen:
        reason = f"detectors looked at {len(read) - len(unseen)} of {len(read)} images: the guard is overloaded"
        found.append(
            Finding(rule="detectors-sampled", outcome=Outcome.FLAG, reason=reason, evidence={"unseen": unseen})
        )
    return found


def _scored(
    label: str, values: Sequence[float | None], answer: Answer
) -> tuple[dict[str, float] | None, list[Finding]]:
    """Return the highest score with its threshold, and a finding where it is above it or is no number."""
    seen = [(value, place) for place, value in enumerate(values) if value is not None]
    threshold = answer.thresholds.get(label)
    if not seen:
        return None, []
    broken = [place for value, place in seen if not math.isfinite(value)]
    if broken or threshold is None or not math.isfinite(threshold):
        reason = f"the score of detector {label} is no number"
        return None, [Finding(rule=_RULES["number"], outcome=Outcome.FLAG, reason=reason, evidence={"index": broken})]
    score, place = max(seen)
    scored = {"score": score, "threshold": threshold, "index": float(place)}
    if score <= threshold:
        return scored, []
    above = [place for value, place in seen if value > threshold]
    finding = Finding(
        rule=_RULES["detector"],
        outcome=Outcome.FLAG,
        reason=f"detector {label}: score {score:.4g} is above its threshold {threshold:.4g}",
        evidence={"detector": label, "score": score, "threshold": threshold, "index": above},
        threats=EVASION,
    )
    return scored, [finding]


def _result(answer: Answer, facts: Facts) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the mean of the inputs' probabilities; no result where one is missing or is no number."""
    rows = [row for row in answer.probabilities if row is not None]
    if not rows:
        return None, [] if answer.unread else [failed("the model gave no answer")]
    if any(len(row) != len(facts.classes) or not all(map(_is_chance, row)) for row in rows):
        reason = "the model's answer is no probability"
        return None, [Finding(rule=_RULES["number"], outcome=Outcome.FLAG, reason=reason)]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    best = max(range(len(mean)), key=mean.__getitem__)
    result: dict[str, Any] = {
        "output": facts.output,
        "classes": list(facts.classes),
        "probabilities": mean,
        "images": len(rows),
        "aggregate": "mean",
    }
    if facts.output == "classes":
        result |= {"class": facts.classes[best], "probability": mean[best]}
    else:
        result |= {"findings": [name for name, chance in zip(facts.classes, mean, strict=True) if chance > 0.5]}
    return result, []


def _is_chance(value: float) -> bool:
    return math.isfinite(value) and -1e-6 <= value <= 1 + 1e-6
