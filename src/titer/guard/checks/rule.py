"""What a rule is: a name, what it catches, and a function that looks at one object or at one series."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from titer.guard.records import Finding, Outcome

if TYPE_CHECKING:
    from titer.guard.checks.past import Past

EVASION = ("NISTAML.022", "AML.T0043.003")
"""Evasion (NIST AI 100-2e2025), adversarial data by manual modification (MITRE ATLAS)."""
EXECUTION = ("AML.T0011",)
"""Execution by a user (MITRE ATLAS)."""
ACCEPTED = 3
"""So many series of a device that passed, or were accepted, with the same peculiarity make it that device's habit."""

LATE = "check-late"
"""The finding of what was not checked in time (G7)."""

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What a rule noticed.

    `habit` names the peculiarity where a device may have it in all it sends (a converter that writes a wrong
    orientation): what a device has always done is no finding. None: it is a finding whoever does it.
    """

    reason: str
    evidence: Mapping[str, Any]
    outcome: Outcome = Outcome.FLAG
    habit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Subject]):
    """One check: `look` yields what it notices, nothing where all is well."""

    name: str
    catches: str
    look: Callable[[Subject, Past], Iterable[Hit]]
    threats: tuple[str, ...] = EVASION


def applied(
    rules: Iterable[Rule[Subject]],
    subject: Subject,
    device: str,
    past: Past,
    late: Callable[[], bool] = lambda: False,
) -> list[Finding]:
    """Return what the rules find; a rule that fails on a malformed value makes a finding of that.

    Args:
        rules: those to apply, in order.
        subject: what they look at.
        device: keyed digest of the device, whose habits are no findings.
        past: what the guard saw before.
        late: whether the time for this subject is over; asked before each rule. Those that are left make a finding.
    """
    found: list[Finding] = []
    left = list(rules)
    while left and not late():
        found += _found(left.pop(0), subject, device, past)
    if not left:
        return found
    names = ", ".join(rule.name for rule in left)
    return [*found, Finding(rule=LATE, outcome=Outcome.FLAG, reason=f"no time was left to check: {names}")]


def habits(findings: Iterable[Finding]) -> set[tuple[str, str]]:
    """Return the peculiarities among findings, as (attribute, value) of a device's baseline."""
    return {(_habit(one.rule), str(one.evidence["habit"])) for one in findings if one.evidence.get("habit") is not None}


def _habit(rule: str) -> str:
    return f"habit:{rule}"


def _found(rule: Rule[Subject], subject: Subject, device: str, past: Past) -> list[Finding]:
    try:
        hits = list(rule.look(subject, past))
    except Exception as error:  # noqa: BLE001 - malformed values make pydicom and NumPy raise a dozen kinds of error
        reason = f"a value that {rule.name} needs is malformed ({type(error).__name__})"
        return [Finding(rule=rule.name, outcome=Outcome.FLAG, reason=reason, threats=rule.threats)]
    known = past.baseline(device, _habit(rule.name)) if any(hit.habit for hit in hits) else {}
    return [_finding(rule, hit) for hit in hits if hit.habit is None or known.get(hit.habit[:128], 0) < ACCEPTED]


def _finding(rule: Rule[Subject], hit: Hit) -> Finding:
    evidence = {key: plain(value) for key, value in hit.evidence.items()}
    if hit.habit is not None:
        evidence["habit"] = hit.habit[:128]
    return Finding(rule=rule.name, outcome=hit.outcome, reason=hit.reason, evidence=evidence, threats=rule.threats)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: no NaN, no infinity, text of at most 200 characters."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return str(value)[:200]


def with_note(finding: Finding, **evidence: Any) -> Finding:
    """Return a finding with more evidence."""
    return replace(finding, evidence={**finding.evidence, **{key: plain(value) for key, value in evidence.items()}})
