"""`report.json`: everything that the page states, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any

from titer.report.before import before
from titer.report.sections import Derived

FORMAT_VERSION = 1


def report_data(derived: Derived) -> dict[str, Any]:
    """Return the content of `report.json`; numbers that do not exist are null."""
    run, findings = derived.run, derived.findings
    content = {
        "format_version": FORMAT_VERSION,
        "title": derived.study.title,
        "study": derived.study,
        "verdicts": findings.verdicts,
        "sanity": {"failures": findings.failures, "alarms": findings.alarms, "checks": run.checks},
        "cautions": findings.cautions,
        "headline": _headline(derived),
        "defenses": findings.rows,
        "rankings": derived.rankings,
        "error_shifts": derived.shifts,
        "errors": derived.errors,
        "staircases": derived.staircases,
        "transfers": derived.transfers,
        "sharing": derived.sharing,
        "queries": derived.queries,
        "gaps": derived.gaps,
        "subgroups": derived.subgroups,
        "certified": derived.certified,
        "detected": derived.detected,
        "explained": derived.explained,
        "statistics": run.statistics,
        "skipped": run.skipped,
        "costs": run.costs,
        "provenance": run.manifest,
        "plan": run.plan,
    }
    plain = _plain(content)
    assert isinstance(plain, dict)
    return plain


def _headline(derived: Derived) -> list[dict[str, Any]]:
    """Return the curves' points: accuracy of every defence at every budget, in the worst case."""
    study, numbers = derived.study, derived.numbers
    return [
        {
            "model": model,
            "defense": defense,
            "threat": threat.label,
            "family": threat.family,
            "eps": threat.eps,
            "unit": threat.unit,
            "clean_accuracy": before(numbers, derived.tallies, model, defense, threat),
            "robust_accuracy": numbers.worst(model, defense, threat.label),
            "attack_success_rate": numbers.worst(model, defense, threat.label, "attack_success_rate"),
        }
        for model in study.models
        for defense in study.defenses
        for ladder in study.families.values()
        for threat in ladder
    ]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
