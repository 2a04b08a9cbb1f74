"""Section `versus_undefended`: what a defence gains under adaptive attack, and what it costs on clean rows."""

from __future__ import annotations

import numpy as np

from titer.stats.comparisons import paired
from titer.stats.evidence import Evidence, Setting, matched, same_samples
from titer.stats.intervals import over_trials
from titer.stats.mcnemar import McNemar, mcnemar
from titer.stats.sections.fields import Row, identity, mcnemar_fields, paired_fields, trial_fields, with_holm

UNDEFENDED = "none"


def versus_undefended(evidence: Evidence) -> list[Row]:
    """Return one row per defence and adaptive attack, worst cases included: attack success rate without and with it.

    Differences are defended - undefended, so a working defence is negative. Success rates count rows that each model
    had right when clean; McNemar's test is of right under attack over all samples, which a defence cannot improve by
    giving up clean accuracy. The Holm family is all rows of this section.
    """
    settings = [each for each in evidence.settings() if each.adaptive and each.defense != UNDEFENDED]
    return with_holm([_row(evidence, setting) for setting in settings], evidence.alpha)


def _row(evidence: Evidence, setting: Setting) -> Row:
    base, confidence = undefended(setting), 1 - evidence.alpha
    rates = (evidence.figure(base, "attack_success_rate"), evidence.figure(setting, "attack_success_rate"))
    without, with_defense = matched(*rates)
    compared = paired(without, with_defense, alpha=evidence.alpha)
    # a trial in which no attack won on the undefended model has nothing to reduce
    reduction = 1 - with_defense[without > 0] / without[without > 0]
    clean = matched(evidence.clean_figure(base, "accuracy"), evidence.clean_figure(setting, "accuracy"))
    change = over_trials(100 * (clean[1] - clean[0]), confidence=confidence)
    return (
        identity(evidence, setting)
        | {"attack_success_rate_undefended": compared.mean_before, "attack_success_rate_defended": compared.mean_after}
        | trial_fields("relative_reduction", over_trials(reduction, confidence=confidence, bounds=(-np.inf, 1.0)))
        | trial_fields("clean_accuracy_change_points", change)
        | paired_fields(compared)
        | mcnemar_fields(_per_sample(evidence, base, setting))
    )


def undefended(setting: Setting) -> Setting:
    """Return the setting of the same attack and threat, searched and judged on the undefended model."""
    return setting._replace(defense=UNDEFENDED, source=UNDEFENDED)


def _per_sample(evidence: Evidence, base: Setting, setting: Setting) -> dict[int, McNemar]:
    found = {}
    for trial, with_defense in evidence.samples(setting).items():
        without = evidence.samples(base).get(trial)
        if without is not None:
            first, second = same_samples(without, with_defense)
            found[trial] = mcnemar(without.right[first], with_defense.right[second], without.patient[first])
    return found
