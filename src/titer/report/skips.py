"""Cells without a result: those that made no sense and were skipped, and those that were tried and failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.core.errors import FAILED
from titer.report.format import join
from titer.report.load import RunFolder
from titer.report.study import Study

_EACH = 4


@dataclass(frozen=True, slots=True)
class Gap:
    """Cells of one attack that have no result for one reason.

    Attributes:
        attack: title of the attack.
        threats: labels of the threats, in order of appearance.
        sources: titles of the defences on which it would have searched.
        cells: number of cells.
        reason: one sentence.
        failed: whether it was tried and failed; otherwise it was skipped before any time was spent.
    """

    attack: str
    threats: tuple[str, ...]
    sources: tuple[str, ...]
    cells: int
    reason: str
    failed: bool


def gaps(run: RunFolder, study: Study) -> tuple[Gap, ...]:
    """Return the cells without a result, one entry per attack and reason, failed ones first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in run.skipped:
        key = str(cell.get("attack")), str(cell.get("reason") or "no reason given")
        groups.setdefault(key, []).append(cell)
    found = [_gap(study, attack, reason, cells) for (attack, reason), cells in groups.items()]
    return tuple(sorted(found, key=lambda gap: not gap.failed))


def _gap(study: Study, attack: str, reason: str, cells: list[dict[str, Any]]) -> Gap:
    models = len(study.models) > 1
    sources = [
        (f"{cell.get('model')}: " if models else "") + study.defense_title(str(cell.get("source"))) for cell in cells
    ]
    return Gap(
        attack="every attack" if attack == "none" else study.attack_title(attack),
        threats=tuple(dict.fromkeys(str(cell.get("threat")) for cell in cells)),
        sources=tuple(dict.fromkeys(sources)),
        cells=len(cells),
        reason=reason.removeprefix(FAILED).strip().rstrip(".") or "no reason given",
        failed=reason.startswith(FAILED),
    )


def sentences(found: tuple[Gap, ...]) -> list[str]:
    """Return the cautions for the first page: every failure, and skipped attacks one by one where they are few."""
    failed, skipped = [gap for gap in found if gap.failed], [gap for gap in found if not gap.failed]
    told = [f"Failed ({_cells(gap)}): {gap.attack}{_under(gap)}. Reason: {gap.reason}." for gap in failed]
    if len(skipped) <= _EACH:
        return told + [f"Not run ({_cells(gap)}): {gap.attack}{_under(gap)}. Reason: {gap.reason}." for gap in skipped]
    names = list(dict.fromkeys(gap.attack for gap in skipped))
    total = sum(gap.cells for gap in skipped)
    return [*told, f"Not run ({total} cells): {join(names)}. The reasons stand under Attacks and threats."]


def _cells(gap: Gap) -> str:
    return "1 cell" if gap.cells == 1 else f"{gap.cells} cells"


def _under(gap: Gap) -> str:
    known = [threat for threat in gap.threats if threat != "none"]
    return f" under {join(known)}" if known else ""
