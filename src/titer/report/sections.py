"""Everything the template shows, as plain data and ready drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.report import tables
from titer.report.charts import Artist
from titer.report.figures import Figure
from titer.report.findings import Findings, Verdict, find
from titer.report.load import RunFolder
from titer.report.numbers import Numbers
from titer.report.panels import panels
from titer.report.provenance import facts, provenance, tested
from titer.report.shifts import Shift, shifts
from titer.report.statistics_tables import protocol_lines, statistics_tables
from titer.report.study import Study, read_study
from titer.report.subgroups import GroupRow, subgroup_rows


@dataclass(frozen=True, slots=True)
class Derived:
    """What is drawn from a run folder before any layout: the report and its data file share it."""

    run: RunFolder
    study: Study
    numbers: Numbers
    findings: Findings
    shifts: tuple[Shift, ...]
    subgroups: tuple[GroupRow, ...]


def derive(run: RunFolder) -> Derived:
    """Draw every number and conclusion of the report from `run`."""
    study, numbers = read_study(run), Numbers(run)
    return Derived(run, study, numbers, find(run, study, numbers), shifts(study, numbers), subgroup_rows(run, study))


def context(derived: Derived) -> dict[str, Any]:
    """Return the variables of the template."""
    run, study, findings = derived.run, derived.study, derived.findings
    artist = Artist(run, study, derived.numbers, findings)
    return {
        "study": study,
        "findings": findings,
        "facts": facts(run, study),
        "tested": tested(run, study),
        "verdicts": [(verdict, artist.headline(verdict.model, verdict.family)) for verdict in findings.verdicts],
        "checks": run.checks,
        "passed": sum(check.get("result") == "pass" for check in run.checks),
        "not_applicable": sum(check.get("result") == "not applicable" for check in run.checks),
        "curves": _curves(artist, findings.verdicts),
        "accuracy_figures": _accuracy_figures(artist, study),
        "accuracy_table": tables.accuracy(study, derived.numbers),
        "errors": _errors(artist, derived),
        "tradeoffs": [
            (v, artist.tradeoff(v.model, v.family), findings.of(v.model, v.family)) for v in findings.verdicts
        ],
        "costs": tables.costs(study, findings),
        "subgroups": tables.subgroups(study, derived.subgroups) if derived.subgroups else None,
        "subgroups_short": _undefended_groups(derived),
        "few_subjects": sum(row.few for row in derived.subgroups),
        "panels": panels(run, study),
        "statistics": statistics_tables(run.statistics, study),
        "protocol": protocol_lines(run.statistics.get("protocol")),
        "statistics_warnings": run.statistics.get("warnings") or [],
        "attacks": tables.attacks(run, study),
        "threats": tables.threats(study),
        "provenance": provenance(run, study),
        "plan": run.plan,
    }


def _curves(artist: Artist, verdicts: tuple[Verdict, ...]) -> list[Figure]:
    found = []
    for verdict in verdicts:
        found.append(artist.curve(verdict.model, verdict.family))
        found += artist.survivals(verdict.model, verdict.family)
    return found


def _accuracy_figures(artist: Artist, study: Study) -> list[Figure]:
    drawn = [artist.accuracy(model, defense) for model in study.models for defense in study.defenses]
    return [figure for figure in drawn if figure is not None]


def _errors(artist: Artist, derived: Derived) -> list[dict[str, Any]]:
    """Return, for each verdict, its shifts and two figures."""
    binary = derived.study.positive is not None
    missed, alarms = "Missed findings, FNR" if binary else "Missed class, FNR", "False alarms, FPR"
    found = []
    for verdict in derived.findings.verdicts:
        rows = [row for row in derived.shifts if (row.model, row.family) == (verdict.model, verdict.family)]
        drawn = [artist.errors(verdict.model, verdict.family, *pair) for pair in (("fnr", missed), ("fpr", alarms))]
        if rows:
            found.append({"verdict": verdict, "rows": rows, "figures": [one for one in drawn if one is not None]})
    return found


def _undefended_groups(derived: Derived) -> tables.Table | None:
    """Return the subgroup rows of the undefended model: what a reader asks first."""
    rows = [row for row in derived.subgroups if row.defense == derived.study.defenses[0]]
    return tables.subgroups(derived.study, rows) if rows else None
