"""Section `transfer`: inputs that fooled the undefended model, shown to a defended one; and what adapting undoes."""

from __future__ import annotations

import numpy as np

from titer.stats.evidence import Evidence, Judged, Setting, matched
from titer.stats.intervals import over_trials
from titer.stats.sections.fields import Row, identity, trial_fields
from titer.stats.sections.versus_undefended import UNDEFENDED, undefended

_NOT_FOOLED = "no input fooled the undefended model, or that cell was not run"


def transfer(evidence: Evidence) -> list[Row]:
    """Return one row per defence, attack and threat whose inputs were found on the undefended model.

    Of the samples that the undefended model had right when clean and wrong under its attack: `recovered`, the share
    that the defended model has right on those very inputs; `adaptive`, the share of the same samples that it still
    has right when the attacker searches on it. The first alone flatters. `clean_accuracy_kept` is the defended clean
    accuracy over the undefended.
    """
    return [
        _row(evidence, setting)
        for setting in evidence.settings()
        if setting.source == UNDEFENDED and setting.defense != UNDEFENDED
    ]


def _row(evidence: Evidence, setting: Setting) -> Row:
    confidence, fooled = 1 - evidence.alpha, _fooled(evidence, setting)
    recovered = _shares(evidence, setting, fooled)
    adaptive = _shares(evidence, setting._replace(source=setting.defense), fooled)
    kept, before = matched(
        evidence.clean_figure(setting, "accuracy"), evidence.clean_figure(undefended(setting), "accuracy")
    )
    ratio = kept[before > 0] / before[before > 0]
    sizes = [ids.size for ids in fooled.values()]
    return (
        identity(evidence, setting)
        | {"n_fooled_per_trial": float(np.mean(sizes)) if sizes else float("nan")}
        | trial_fields("recovered", over_trials(recovered, confidence=confidence, bounds=(0.0, 1.0)))
        | trial_fields("adaptive", over_trials(adaptive, confidence=confidence, bounds=(0.0, 1.0)))
        | trial_fields("clean_accuracy_kept", over_trials(ratio, confidence=confidence, bounds=(0.0, np.inf)))
        | {"reason": None if recovered else _NOT_FOOLED}
    )


def _fooled(evidence: Evidence, setting: Setting) -> dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return per trial the samples that the undefended model had right when clean and that the attack won."""
    base = evidence.samples(undefended(setting))
    return {trial: each.sample[each.won & each.right_when_clean] for trial, each in base.items()}


def _shares(
    evidence: Evidence, setting: Setting, fooled: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]]
) -> list[float]:
    judged = evidence.samples(setting)
    shares = [_share(judged[trial], ids) for trial, ids in fooled.items() if trial in judged]
    return [share for share in shares if not np.isnan(share)]


def _share(judged: Judged, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    right = judged.right[np.isin(judged.sample, ids)]
    return float(right.mean()) if right.size else float("nan")
