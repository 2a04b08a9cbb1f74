"""The statistical protocol: which test stands where, and statistics.json. Explained in docs/reference/statistics.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from titer.stats import intervals, mcnemar
from titer.stats.effects import smallest_wilcoxon_p
from titer.stats.evidence import gather
from titer.stats.sections.across_defenses import across_defenses
from titer.stats.sections.before_after import before_after
from titer.stats.sections.doubts import doubts
from titer.stats.sections.ranking import ranking
from titer.stats.sections.summary import summary
from titer.stats.sections.transfer import transfer
from titer.stats.sections.versus_undefended import versus_undefended

FORMAT_VERSION = 1


def analyse(outcomes: pd.DataFrame, metrics: pd.DataFrame, *, alpha: float = 0.05, seed: int = 0) -> dict[str, Any]:
    """Return the content of statistics.json from outcomes.parquet and metrics.parquet.

    JSON-ready: plain Python types, None for what is undefined or could not be tested, with a `reason` beside it.
    `alpha` is the level of every test and 1 - alpha that of every interval; `seed` draws the bootstrap.
    The same arguments give the same result. Raises ValueError for a damaged table or alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: allowed is more than 0 and less than 1")
    evidence = gather(outcomes, metrics, alpha=alpha, seed=seed)
    tested = {
        "before_after": before_after(evidence),
        "across_defenses": across_defenses(evidence),
        "versus_undefended": versus_undefended(evidence),
    }
    found: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "protocol": protocol(alpha=alpha, seed=seed, trials=len(evidence.trials)),
        "summary": summary(evidence),
        **tested,
        "ranking": ranking(evidence, tested["across_defenses"]),
        "transfer": transfer(evidence),
        "warnings": doubts(evidence, metrics, tested),
    }
    return {key: plain(value) for key, value in found.items()}


def protocol(*, alpha: float, seed: int, trials: int) -> dict[str, Any]:
    """Return names, settings and references of every test and interval."""
    return {
        "alpha": alpha,
        "confidence": 1 - alpha,
        "seed": seed,
        "trials": trials,
        "smallest_wilcoxon_p": smallest_wilcoxon_p(trials),
        "methods": [
            {"name": name, "use": use, "settings": settings, "reference": reference}
            for name, use, settings, reference in _METHODS
        ],
        "notes": list(_NOTES),
    }


def plain(value: Any) -> Any:
    """Return `value` in JSON's types: NumPy scalars become Python's, NaN and infinity None, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


_METHODS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    (
        "Student's t interval",
        "a figure over trials",
        {"clipped": "[0, 1] for proportions"},
        "Student 1908, Biometrika 6:1",
    ),
    (
        "Patient-clustered bootstrap",
        "pooled interval of accuracy and attack success rate",
        {"resamples": intervals.RESAMPLES, "limits": "percentile", "unit": "patient"},
        "Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8",
    ),
    (
        "Clopper-Pearson interval",
        "pooled interval where few patients have any success or any failure",
        {"fewer_than_patients": intervals.FEWEST_PATIENTS, "n": "effective number of patients (Kish 1965)"},
        "Clopper and Pearson 1934, Biometrika 26:404",
    ),
    (
        "Shapiro-Wilk test",
        "normality of differences and of groups",
        {"least_n": 3},
        "Shapiro and Wilk 1965, Biometrika 52:591",
    ),
    (
        "Paired t-test",
        "paired over trials, differences normal",
        {"sides": 2},
        "Student 1908, Biometrika 6:1",
    ),
    (
        "Wilcoxon signed-rank test",
        "paired over trials, normality rejected or not testable",
        {"sides": 2, "zeros": "dropped", "distribution": "exact for few pairs"},
        "Wilcoxon 1945, Biometrics Bulletin 1:80",
    ),
    (
        "McNemar's test",
        "two verdicts per sample, first trial, and median p over trials",
        {"exact_below": mcnemar.EXACT_BELOW, "continuity_correction": False},
        "McNemar 1947, Psychometrika 12:153; Fagerland et al. 2013, BMC Med Res Methodol 13:91",
    ),
    (
        "Modified Obuchowski test",
        "McNemar's test where a patient has several samples",
        {"exact_below": mcnemar.EXACT_BELOW, "unit": "patient"},
        "Yang, Sun and Hardin 2010, Biom J 52:638; Obuchowski 1998, Stat Med 17:1495",
    ),
    (
        "One-way ANOVA with Tukey's HSD",
        "across defences; all groups normal, variances alike",
        {"limits": "simultaneous"},
        "Fisher 1925, Statistical Methods for Research Workers; Tukey 1949, Biometrics 5:99",
    ),
    (
        "Levene's test about the median",
        "equal variances of defences",
        {"center": "median"},
        "Brown and Forsythe 1974, JASA 69:364",
    ),
    (
        "Friedman's test with Holm-corrected Wilcoxon pairs",
        "across defences otherwise; trials are blocks",
        {"distribution": "chi-squared approximation", "two_defences": "Wilcoxon signed-rank"},
        "Friedman 1937, JASA 32:675",
    ),
    (
        "Compact letter display",
        "ranking of defences: those that share a letter were not told apart",
        {"pairs": "Tukey's HSD where it applies, else McNemar's test over patients, Holm-corrected"},
        "Piepho 2004, J Comput Graph Stat 13:456",
    ),
    (
        "Holm's correction",
        "each family: all rows of before_after, of across_defenses, of versus_undefended",
        {"not_counted": "tests that could not be done"},
        "Holm 1979, Scand J Statist 6:65",
    ),
    (
        "Cohen's d and eta squared",
        "effect sizes",
        {"d_z": "SD of the differences", "d_pooled": "pooled SD of the two groups"},
        "Cohen 1988, Statistical Power Analysis; Lakens 2013, Front Psychol 4:863",
    ),
    (
        "Power",
        "at the observed effect, and trials needed",
        {"target": 0.8, "wilcoxon_efficiency": 0.864},
        "Cohen 1988, Statistical Power Analysis; Hodges and Lehmann 1956, Ann Math Statist 27:324",
    ),
)

_NOTES = (
    "An interval over trials covers retraining, not the choice of patients; a pooled interval covers the choice of "
    "patients, not retraining. Neither covers another hospital.",
    "Trials over a fixed test set judge the same patients again: they are not independent replications.",
    "With five trials the smallest two-sided p value of the Wilcoxon test is 0.0625; McNemar's test per sample and "
    "the bootstrap over patients stand beside the tests over trials for that reason.",
    "Power at the observed effect restates the p value (Hoenig and Heisey 2001, Am Stat 55:19); trials needed is a "
    "planning figure.",
    "McNemar's test is done in each trial and not on pooled trials, whose samples repeat.",
    "Every figure is an upper bound on robustness: a stronger attack can only lower it.",
)
