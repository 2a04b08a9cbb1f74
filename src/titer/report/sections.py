"""Everything the template shows, as plain data and ready drawings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from titer.report import tables
from titer.report.certified import Certified, certified, certified_context
from titer.report.charts import Artist
from titer.report.detected import Detected, detected
from titer.report.detected_page import detected_context, first_page
from titer.report.explained import Explained, explained, explained_context
from titer.report.findings import Findings, Verdict, find
from titer.report.goals import goal_class, goal_words
from titer.report.graded import ErrorRow, error_rows, right_words
from titer.report.load import RunFolder
from titer.report.marks import Figure
from titer.report.numbers import Numbers
from titer.report.panels import panels
from titer.report.provenance import facts, provenance, tested
from titer.report.queries import QueryRow, query_rows
from titer.report.ranking import Ranking, ranking_table, rankings, weak_sentences
from titer.report.shared import Sharing, sharing, sharing_context
from titer.report.shifts import Shift, shifts
from titer.report.skips import Gap, gaps
from titer.report.statistics_tables import protocol_lines, statistics_tables
from titer.report.study import Study, read_study
from titer.report.subgroups import GroupRow, subgroup_rows
from titer.report.survival import Staircase, staircases
from titer.report.tallies import Tallies, tally
from titer.report.transfers import SURROGATE, TransferMatrix, transfer_matrices


@dataclass(frozen=True, slots=True)
class Derived:
    """What is drawn from a run folder before any layout: the report and its data file share it."""

    run: RunFolder
    study: Study
    numbers: Numbers
    findings: Findings
    rankings: tuple[Ranking, ...]
    tallies: Tallies
    staircases: tuple[Staircase, ...]
    shifts: tuple[Shift, ...]
    errors: tuple[ErrorRow, ...]
    transfers: tuple[TransferMatrix, ...]
    queries: tuple[QueryRow, ...]
    gaps: tuple[Gap, ...]
    subgroups: tuple[GroupRow, ...]
    certified: Certified | None
    detected: Detected | None
    explained: Explained | None
    sharing: tuple[Sharing, ...]


def derive(run: RunFolder) -> Derived:
    """Draw every number and conclusion of the report from `run`."""
    study, numbers = read_study(run), Numbers(run)
    tallies = tally(run, study)
    findings, watched = find(run, study, numbers, tallies), detected(run, study)
    findings = replace(findings, cautions=(*findings.cautions, *first_page(watched, study)))
    return Derived(
        run=run,
        study=study,
        numbers=numbers,
        findings=findings,
        rankings=rankings(run, study, findings, tallies),
        tallies=tallies,
        staircases=staircases(run, study, tallies),
        shifts=shifts(study, numbers, tallies),
        errors=error_rows(study, numbers),
        transfers=transfer_matrices(study, tallies),
        queries=query_rows(study, numbers, tallies),
        gaps=gaps(run, study),
        subgroups=subgroup_rows(run, study),
        certified=certified(run, study),
        detected=watched,
        explained=explained(run, study),
        sharing=sharing(run),
    )


def context(derived: Derived) -> dict[str, Any]:
    """Return the variables of the template."""
    run, study, findings = derived.run, derived.study, derived.findings
    artist = Artist(study, derived.numbers, findings, derived.tallies, derived.staircases)
    return {
        "study": study,
        "findings": findings,
        "facts": facts(run, study),
        "tested": tested(run, study),
        "verdicts": [(verdict, artist.headline(verdict.model, verdict.family)) for verdict in findings.verdicts],
        "rankings": [ranking_table(study, one) for one in derived.rankings],
        "weak": weak_sentences(study, derived.rankings),
        "checks": sorted(run.checks, key=lambda check: check.get("result") not in ("fail", "alarm")),
        "passed": sum(check.get("result") == "pass" for check in run.checks),
        "not_applicable": sum(check.get("result") == "not applicable" for check in run.checks),
        "right": right_words(study),
        "curves": [_curves(artist, verdict) for verdict in findings.verdicts],
        "accuracy_figures": _accuracy_figures(artist, study),
        "accuracy_table": tables.accuracy(study, derived.numbers, derived.tallies),
        "errors": _errors(artist, derived),
        "transfers": _transfers(artist, derived),
        "surrogates": any(source.startswith(SURROGATE) for one in derived.transfers for source in one.sources),
        "queries": tables.queries(study, derived.queries) if derived.queries else None,
        "queries_short": _undefended_queries(derived),
        "gaps": tables.gaps(derived.gaps),
        "tradeoffs": [
            (v, artist.tradeoff(v.model, v.family), findings.of(v.model, v.family)) for v in findings.verdicts
        ],
        "costs": tables.costs(study, findings),
        "subgroups": tables.subgroups(study, derived.subgroups) if derived.subgroups else None,
        "subgroups_short": _undefended_groups(derived),
        "few_subjects": sum(row.few for row in derived.subgroups),
        "panels": panels(run, study),
        **_studies(derived),
        "statistics": statistics_tables(run.statistics, study),
        "protocol": protocol_lines(run.statistics.get("protocol")),
        "statistics_warnings": run.statistics.get("warnings") or [],
        "attacks": tables.attacks(run, study),
        "threats": tables.threats(study),
        "provenance": provenance(run, study),
        "plan": run.plan,
    }


def _studies(derived: Derived) -> dict[str, Any]:
    """Return what is shown of certificates, detectors and explanations; None for what the plan did not ask."""
    study = derived.study
    return {
        "certified": certified_context(derived.certified, study),
        "detected": detected_context(derived.detected, study),
        "explained": explained_context(derived.explained, derived.run, study),
        "sharing": sharing_context(derived.sharing, study),
    }


def _curves(artist: Artist, verdict: Verdict) -> dict[str, Any]:
    """Return the figures of one model and family: two to see, and the other least-perturbation attacks to unfold."""
    stairs = artist.stairs(verdict.model, verdict.family)
    first = [artist.curve(verdict.model, verdict.family), *stairs[:1]]
    return {"verdict": verdict, "first": first, "more": stairs[1:]}


def _accuracy_figures(artist: Artist, study: Study) -> list[Figure]:
    drawn = [artist.accuracy(model, defense) for model in study.models for defense in study.defenses]
    return [figure for figure in drawn if figure is not None]


def _errors(artist: Artist, derived: Derived) -> list[dict[str, Any]]:
    """Return, for each verdict, its shifts of sensitivity and specificity, its mean errors, and the figures of both."""
    found = []
    for verdict in derived.findings.verdicts:
        mine = (verdict.model, verdict.family)
        rows = [row for row in derived.shifts if (row.model, row.family) == mine]
        errors = [row for row in derived.errors if (row.model, row.family) == mine]
        drawn = [artist.errors(rows, missed=missed) for missed in (True, False)] if rows else []
        drawn += [artist.graded(errors)] if errors else []
        if rows or errors:
            goal = derived.study.largest(verdict.family).goal
            found.append(
                {
                    "verdict": verdict,
                    "goal": goal_words(goal, derived.study),
                    "spared": _spared(goal, derived.study),
                    "rows": rows,
                    "figures": [one for one in drawn if one is not None],
                    "table": tables.errors(derived.study, errors) if errors else None,
                }
            )
    return found


def _spared(goal: str, study: Study) -> str:
    """Say, of a goal about one finding of several, who is a positive and which of the two rates it cannot change."""
    aim = goal_class(goal, study) if study.output == "labels" else None
    if aim is None:
        return ""
    who, rate = ("those", "specificity") if goal.startswith("hide") else ("the others", "sensitivity")
    return (
        f"Positives are the {study.subject[1]} with “{study.classes[aim]}”. Under this goal only {who} are attacked: "
        f"the {rate} stays what it is without attack."
    )


def _transfers(artist: Artist, derived: Derived) -> list[tuple[Figure, tables.Table]]:
    """Return each transfer matrix as a figure and as a table."""
    drawn = [artist.matrix(one) for one in derived.transfers]
    return list(zip(drawn, tables.transfers(derived.study, derived.transfers), strict=True))


def _undefended_groups(derived: Derived) -> tables.Table | None:
    """Return the subgroup rows of the undefended model: what a reader asks first."""
    rows = [row for row in derived.subgroups if row.defense == derived.study.defenses[0]]
    return tables.subgroups(derived.study, rows) if rows else None


def _undefended_queries(derived: Derived) -> tables.Table | None:
    rows = [row for row in derived.queries if row.defense == derived.study.defenses[0]]
    return tables.queries(derived.study, rows) if rows else None
