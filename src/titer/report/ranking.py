"""The defences in order: right under attack first, then right without one, then cost; and which of them are weak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.report.findings import DefenseRow, Findings, Verdict
from titer.report.format import percent, ratio
from titer.report.gains import SMALLEST_CUT
from titer.report.load import ANY_ERROR, RunFolder
from titer.report.numbers import NOTHING, Estimate
from titer.report.study import UNDEFENDED, WORST, Study
from titer.report.tables import Table, plain
from titer.report.tallies import Tallies
from titer.report.wording import estimate

WEAK = "weak"
UNPROVEN = "not shown to help"
DOUBTED = "not trusted"
HELPS = "helps"


@dataclass(frozen=True, slots=True)
class Ranked:
    """One defence in its place; letters tell groups: defences that share one were not told apart by any test."""

    row: DefenseRow
    letters: str
    clean_letters: str
    judged: str
    rarest: Estimate


@dataclass(frozen=True, slots=True)
class Ranking:
    """The defences of one model under one family's largest budget, the best first; `test` told them apart.

    `rarest` names the class with the fewest rows: what is right on average may still fail there. Empty where no class
    is rarer than the others, for outputs that are no classes, and for goals other than any error.
    """

    model: str
    family: str
    threat: str
    test: str
    rarest: str
    rows: tuple[Ranked, ...]

    @property
    def weak(self) -> tuple[Ranked, ...]:
        """The defences that an attacker who knows them undoes."""
        return tuple(one for one in self.rows if one.judged == WEAK)


def rankings(run: RunFolder, study: Study, findings: Findings, tallies: Tallies) -> tuple[Ranking, ...]:
    """Return one ranking for each verdict of the report that has a defence."""
    found = (_ranking(run, study, findings, tallies, verdict) for verdict in findings.verdicts)
    return tuple(one for one in found if len(one.rows) > 1)


def _ranking(run: RunFolder, study: Study, findings: Findings, tallies: Tallies, verdict: Verdict) -> Ranking:
    robust = _section(run, verdict.model, WORST, verdict.threat)
    clean = _letters(_section(run, verdict.model, "none", "none"))
    letters = _letters(robust)
    asked = not study.graded and study.largest(verdict.family).goal == ANY_ERROR
    rarest = tallies.rarest() if asked else None
    rows = [
        Ranked(
            row=row,
            letters=letters.get(row.defense, ""),
            clean_letters=clean.get(row.defense, ""),
            judged=_judged(row),
            rarest=NOTHING if rarest is None else tallies.robust_in_class(*_place(row), verdict.threat, rarest),
        )
        for row in sorted(findings.of(verdict.model, verdict.family), key=_order)
    ]
    return Ranking(
        model=verdict.model,
        family=verdict.family,
        threat=verdict.threat,
        test=str(robust.get("test") or ""),
        rarest="" if rarest is None else study.classes[rarest],
        rows=tuple(rows),
    )


def _place(row: DefenseRow) -> tuple[str, str]:
    return row.model, row.defense


def _section(run: RunFolder, model: str, attack: str, threat: str) -> dict[str, Any]:
    wanted = {"model": model, "attack": attack, "threat": threat}
    rows: list[dict[str, Any]] = run.statistics.get("ranking") or []
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), {})


def _letters(section: dict[str, Any]) -> dict[str, str]:
    return {str(one["defense"]): str(one["letters"]) for one in section.get("order") or []}


def _order(row: DefenseRow) -> tuple[float, float, float]:
    cost = row.cost.training
    return -(row.adaptive.mean or 0.0), -(row.clean.mean or 0.0), float("inf") if cost is None else cost


def _judged(row: DefenseRow) -> str:
    if row.defense == UNDEFENDED:
        return ""
    if row.failed:
        return DOUBTED
    if row.mark:
        return HELPS
    cut = row.gain.reduction if row.gain is not None else None
    return WEAK if cut is not None and cut < SMALLEST_CUT else UNPROVEN


def ranking_table(study: Study, ranking: Ranking) -> Table:
    """Return the ranking as a table."""
    rows = [
        (
            f"{place}. {one.row.title}",
            one.judged or "the reference",
            estimate(one.row.adaptive),
            one.letters or "–",
            estimate(one.row.clean),
            one.clean_letters or "–",
            *([estimate(one.rarest)] if ranking.rarest else []),
            ratio(one.row.cost.training_ratio),
            ratio(one.row.cost.inference_ratio),
        )
        for place, one in enumerate(ranking.rows, 1)
    ]
    rare = [f"Rarest class “{ranking.rarest}” right under attack"] if ranking.rarest else []
    names = ("Defence", "Verdict", "Right under attack", "Group", "Right without", "Group")
    headings = (*names, *rare, "Training", "Inference")
    model = f"{ranking.model}: " if len(study.models) > 1 else ""
    caption = (
        f"{model}Defences in order under {ranking.threat}, worst case, the attacker knows the defence (95 % CI); those "
        f"that share a letter were not told apart ({ranking.test or 'no test'}); cost relative to the undefended model"
    )
    return plain(caption, headings, rows, 2)


def weak_sentences(study: Study, found: tuple[Ranking, ...]) -> tuple[str, ...]:
    """Say of each weak defence what it seems to be worth, and what it is worth, under every threat together."""
    lines: dict[tuple[str, str], list[str]] = {}
    for ranking in found:
        for one in ranking.weak:
            lines.setdefault((ranking.model, one.row.title), []).append(_weakness(ranking, one.row))
    model = len(study.models) > 1
    return tuple(
        f"{title}{f' ({name})' if model else ''}: {'; '.join(parts)}." for (name, title), parts in lines.items()
    )


def _weakness(ranking: Ranking, row: DefenseRow) -> str:
    held = f"{percent(row.adaptive.mean)} right against an attacker who knows it"
    if row.transfer.mean is not None:
        held = f"{percent(row.transfer.mean)} right against an attacker who does not know it, {held}"
    undefended = next(one.row for one in ranking.rows if one.row.defense == UNDEFENDED)
    return f"under {ranking.threat} {held} (undefended {percent(undefended.adaptive.mean)})"
