"""What a defence takes off the attack's success, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from titer.report.format import p_phrase
from titer.report.study import UNDEFENDED, WORST

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Gain:
    """Attack success with and without a defence, in the worst case over adaptive attacks.

    Attributes:
        undefended: attack success rate on the undefended model.
        defended: attack success rate on the defended model.
        reduction: relative reduction of attack success; negative where the defence makes it worse.
        clean_change: accuracy without attack, defended less undefended.
        p: the p value that was used; None where there is none.
        test: name of the test behind `p`.
        significant: attack success is lower, and `p` is below 0.05.
        reason: the same in words.
    """

    undefended: float | None
    defended: float | None
    reduction: float | None
    clean_change: float | None
    p: float | None
    test: str
    significant: bool
    reason: str


def read_gain(statistics: Mapping[str, Any], model: str, defense: str, threat: str) -> Gain:
    """Return the gain of a defence over the undefended model under one threat."""
    row = next(_matching(statistics, "versus_undefended", model, threat, defense), {})
    reduction = _number(row, "relative_reduction")
    p, test = _p(statistics, row, model, defense, threat)
    lower = reduction is not None and reduction > 0
    significant = lower and p is not None and p < ALPHA
    return Gain(
        undefended=_number(row, "success_undefended", "success_none", "attack_success_undefended"),
        defended=_number(row, "success_defended", "success_defense", "attack_success_defended"),
        reduction=reduction,
        clean_change=_number(row, "clean_accuracy_change"),
        p=p,
        test=test,
        significant=significant,
        reason=_reason(reduction, p, test, significant=significant),
    )


def _reason(reduction: float | None, p: float | None, test: str, *, significant: bool) -> str:
    if reduction is None:
        return "attack success was not compared with the undefended model"
    if reduction <= 0:
        return "attack success is not lower than on the undefended model"
    if p is None:
        return "no test of the reduction is available"
    words = f"attack success {'significantly' if significant else 'not significantly'} lower"
    return f"{words} ({test}, {p_phrase(p)})"


def _p(
    statistics: Mapping[str, Any], row: Mapping[str, Any], model: str, defense: str, threat: str
) -> tuple[float | None, str]:
    """Return the test across trials (corrected) where there is one, else McNemar's test over patients."""
    corrected = _number(row, "p_holm")
    if corrected is not None:
        return corrected, f"{row.get('test') or 'paired test'} across trials, Holm-corrected"
    for table in _matching(statistics, "across_defenses", model, threat):
        for pair in table.get("pairs") or []:
            if {pair.get("a"), pair.get("b")} == {UNDEFENDED, defense}:
                value = _number(pair, "p_holm", "p_adjusted", "p")
                if value is not None:
                    return value, f"{table.get('pairs_test') or 'pairwise test'} across trials, corrected"
    value = _number(row, "mcnemar_p_holm", "mcnemar_p")
    return value, "McNemar's test over patients" if value is not None else ""


def _matching(
    statistics: Mapping[str, Any], table: str, model: str, threat: str, defense: str = ""
) -> Iterator[Mapping[str, Any]]:
    for row in statistics.get(table) or []:
        same = row.get("model") == model and row.get("threat") == threat and row.get("attack", WORST) == WORST
        if same and (not defense or row.get("defense") == defense):
            yield row


def _number(row: Mapping[str, Any], *names: str) -> float | None:
    value = next((row[name] for name in names if row.get(name) is not None), None)
    return None if value is None else float(value)
