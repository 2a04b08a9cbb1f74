"""What a defence takes off the attack's success, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from titer.report.format import p_phrase, percent
from titer.report.study import WORST

ALPHA = 0.05
SMALLEST_CUT = 0.25
"""A cut that is more than chance may still be too small to matter: a mark needs a quarter of the attack's success."""
_PER_PATIENT = "per-sample McNemar test of the first trial"


@dataclass(frozen=True, slots=True)
class Gain:
    """Attack success with and without a defence, in the worst case over adaptive attacks.

    Attributes:
        undefended: attack success rate on the undefended model.
        defended: attack success rate on the defended model.
        reduction: relative reduction of attack success; negative where the defence makes it worse.
        reduction_low: lower 95 % bound of `reduction`; `reduction_high` is the upper one.
        reduction_high: upper bound.
        clean_change: accuracy without attack, defended less undefended, as a share.
        p: corrected p value of the test that decided; None where there is none.
        test: name of that test.
        significant: attack success is lower by at least `SMALLEST_CUT`, and a corrected p is below 0.05.
        reason: the same in words.
    """

    undefended: float | None
    defended: float | None
    reduction: float | None
    reduction_low: float | None
    reduction_high: float | None
    clean_change: float | None
    p: float | None
    test: str
    significant: bool
    reason: str


def read_gain(statistics: Mapping[str, Any], model: str, defense: str, threat: str) -> Gain:
    """Return the gain of a defence over the undefended model under one threat."""
    wanted = {"model": model, "defense": defense, "threat": threat, "attack": WORST}
    rows = statistics.get("versus_undefended") or []
    row: Mapping[str, Any] = next(
        (one for one in rows if all(one.get(key) == value for key, value in wanted.items())), {}
    )
    undefended, defended = row.get("attack_success_rate_undefended"), row.get("attack_success_rate_defended")
    lower = undefended is not None and defended is not None and defended < undefended
    p, test = _decisive(row)
    change = row.get("clean_accuracy_change_points_mean")
    return Gain(
        undefended=undefended,
        defended=defended,
        reduction=row.get("relative_reduction_mean"),
        reduction_low=row.get("relative_reduction_ci_low"),
        reduction_high=row.get("relative_reduction_ci_high"),
        clean_change=None if change is None else change / 100,
        p=p,
        test=test,
        significant=lower and p is not None and p < ALPHA and (row.get("relative_reduction_mean") or 0) >= SMALLEST_CUT,
        reason=_reason(row, p, test, lower=lower),
    )


def _decisive(row: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the corrected p that decides: the test over trials, or McNemar's where that one does not reach 0.05.

    Five trials can never reach it by Wilcoxon's test, so the patients are asked as well; they count for the defence
    only if more of them turned right than wrong, and if the other trials agree (median p).
    """
    trials, patients = row.get("p_holm"), row.get("mcnemar_p_holm")
    if trials is not None and trials < ALPHA:
        return trials, f"{row.get('test')} over trials"
    median, gained, lost = row.get("mcnemar_median_p"), row.get("mcnemar_gained") or 0, row.get("mcnemar_lost") or 0
    agreed = median is not None and median < ALPHA and gained > lost
    if patients is not None and patients < ALPHA and agreed:
        return patients, _PER_PATIENT
    if trials is not None:
        return trials, f"{row.get('test')} over trials"
    # alone it may still tell against the defence, never for it
    return (patients, _PER_PATIENT) if patients is not None and patients >= ALPHA else (None, "")


def _reason(row: Mapping[str, Any], p: float | None, test: str, *, lower: bool) -> str:
    if row.get("attack_success_rate_defended") is None or row.get("attack_success_rate_undefended") is None:
        return f"attack success was not compared with the undefended model ({row.get('reason') or 'no numbers'})"
    if not lower:
        return "attack success is not lower than on the undefended model"
    if p is None:
        return f"no test of the reduction is available ({row.get('reason') or 'too few trials'})"
    cut = row.get("relative_reduction_mean") or 0
    if p < ALPHA and cut < SMALLEST_CUT:
        return f"attack success is lower by {percent(cut)} only, less than a quarter ({test}, corrected {p_phrase(p)})"
    word = "significantly" if p < ALPHA else "not significantly"
    return f"attack success {word} lower ({test}, Holm-corrected {p_phrase(p)})"
