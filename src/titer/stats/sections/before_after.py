"""Section `before_after`: what an adaptive attack costs each model, paired over trials and per sample."""

from __future__ import annotations

from titer.stats.comparisons import paired
from titer.stats.evidence import Evidence, Setting, matched
from titer.stats.mcnemar import mcnemar
from titer.stats.sections.fields import Row, identity, mcnemar_fields, paired_fields, with_holm
from titer.stats.tables import ANY_ERROR


def before_after(evidence: Evidence) -> list[Row]:
    """Return one row per adaptive attack, worst cases included: accuracy on clean rows against accuracy under attack.

    Differences are attacked - clean. Under any goal but any error, both means are of the attacked rows: there a row of
    several findings is right about the goal's one finding, and in the clean cell about all of them. The Holm family is
    all rows of this section.
    """
    rows = [_row(evidence, setting) for setting in evidence.settings() if setting.adaptive]
    return with_holm(rows, evidence.alpha)


def _row(evidence: Evidence, setting: Setting) -> Row:
    clean, attacked = matched(_clean_accuracy(evidence, setting), evidence.figure(setting, "accuracy"))
    compared = paired(clean, attacked, alpha=evidence.alpha)
    # the clean verdict of the very same row: no join can go wrong
    samples = {
        trial: mcnemar(each.right_when_clean, each.right, each.patient)
        for trial, each in evidence.samples(setting).items()
    }
    return (
        identity(evidence, setting)
        | {"clean_mean": compared.mean_before, "attacked_mean": compared.mean_after}
        | paired_fields(compared)
        | mcnemar_fields(samples)
    )


def _clean_accuracy(evidence: Evidence, setting: Setting) -> dict[int, float]:
    """Return per trial the share of rows that are right without attack, in the sense of the setting's goal."""
    if evidence.budgets[setting]["goal"] == ANY_ERROR:
        return evidence.clean_figure(setting, "accuracy")
    return {trial: float(each.right_when_clean.mean()) for trial, each in evidence.samples(setting).items()}
