"""Comparison of several defences over the same trials: ANOVA with Tukey's HSD, or ranks with Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from titer.stats import effects
from titer.stats.comparisons import NOT_APPLICABLE, WILCOXON, Normality, holm, normality, wilcoxon
from titer.stats.intervals import is_constant, over_trials

Real = NDArray[np.float64]
PARAMETRIC = "anova+tukey"
RANKS = "friedman+holm"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two groups: `mean_difference` is mean(a) - mean(b); the limits are simultaneous over all pairs of the comparison.

    `p` is NaN under Tukey's HSD, whose p values are corrected by construction (`p_corrected`).
    """

    a: str
    b: str
    mean_difference: float
    ci_low: float
    ci_high: float
    p: float
    p_corrected: float
    cohens_d: float
    significant: bool


@dataclass(frozen=True, slots=True)
class GroupComparison:
    """An omnibus test over `n` trials of each group, and the pairs. `statistic` and `p` belong to `omnibus_test`."""

    n: int
    method: str
    omnibus_test: str
    statistic: float
    df1: float
    df2: float
    p: float
    eta_squared: float
    kendalls_w: float
    power: float
    levene_p: float
    shapiro: dict[str, Normality]
    pair_test: str
    pairs: tuple[Pair, ...]
    reason: str | None


def compare_groups(samples: Mapping[str, ArrayLike], *, alpha: float = 0.05) -> GroupComparison:
    """Compare groups of equally many values, [n] each, where value i of every group is of the same trial.

    One-way ANOVA (Fisher 1925) with Tukey's HSD (Tukey 1949) where no group's Shapiro-Wilk and not Levene's test
    about the median (Brown and Forsythe 1974) rejects at `alpha`. Otherwise, and where a group is constant, Friedman's
    test (Friedman 1937; chi-squared approximation; two groups: Wilcoxon's test) with Holm-corrected
    signed-rank tests of the pairs. Trials share data and seeds across defences, so they are blocks and Friedman is
    legitimate; ANOVA ignores the blocks, which costs power and flatters nothing where blocks correlate positively.
    Not applicable for fewer than two groups, fewer than three trials, or where no trial tells groups apart.
    Raises ValueError for groups of unequal size or with NaN.
    """
    names, table = list(samples), _table(samples)
    shapiro = {name: normality(row, alpha=alpha) for name, row in zip(names, table, strict=True)}
    reason = _why_not(table)
    if reason:
        return _without_test(table, shapiro, reason)
    levene_p = _levene(table)
    usual = all(shape.normal for shape in shapiro.values()) and levene_p >= alpha
    compared = _parametric(names, table, alpha) if usual else _ranked(names, table, alpha)
    return replace(compared, shapiro=shapiro, levene_p=levene_p)


def _parametric(names: list[str], table: Real, alpha: float) -> GroupComparison:
    from scipy import stats

    k, n = table.shape
    found = stats.f_oneway(*table)
    eta = effects.eta_squared(table)
    power = effects.anova_power(eta, groups=k, n=n, alpha=alpha)
    return GroupComparison(
        n, PARAMETRIC, "one-way ANOVA", float(found.statistic), k - 1, k * (n - 1), float(found.pvalue), eta,
        float("nan"), power, float("nan"), {}, "Tukey HSD", _tukey(names, table, alpha), None,
    )  # fmt: skip


def _tukey(names: list[str], table: Real, alpha: float) -> tuple[Pair, ...]:
    from scipy import stats

    found = stats.tukey_hsd(*table)
    limits = found.confidence_interval(confidence_level=1 - alpha)
    return tuple(
        Pair(
            a=names[i],
            b=names[j],
            mean_difference=float(found.statistic[i, j]),
            ci_low=float(limits.low[i, j]),
            ci_high=float(limits.high[i, j]),
            p=float("nan"),
            p_corrected=float(np.clip(found.pvalue[i, j], 0, 1)),
            cohens_d=effects.cohens_d_pooled(table[j], table[i]),
            significant=bool(found.pvalue[i, j] < alpha),
        )
        for i, j in combinations(range(len(names)), 2)
    )


def _ranked(names: list[str], table: Real, alpha: float) -> GroupComparison:
    from scipy import stats

    k, n = table.shape
    eta, pairs, nan = effects.eta_squared(table), _wilcoxon_pairs(names, table, alpha), float("nan")
    if k == 2:
        statistic, p = wilcoxon(table[0] - table[1])
        return GroupComparison(
            n, RANKS, WILCOXON, statistic, nan, nan, p, eta, nan, nan, nan, {}, WILCOXON, pairs, None
        )
    found = stats.friedmanchisquare(*np.round(table, 12))
    statistic = float(found.statistic)
    agreement = statistic / (n * (k - 1))
    return GroupComparison(
        n, RANKS, "Friedman", statistic, k - 1, nan, float(found.pvalue), eta, agreement, nan, nan, {},
        f"{WILCOXON}, Holm-corrected", pairs, None,
    )  # fmt: skip


def _wilcoxon_pairs(names: list[str], table: Real, alpha: float) -> tuple[Pair, ...]:
    places = list(combinations(range(len(names)), 2))
    p = np.array([wilcoxon(table[i] - table[j])[1] for i, j in places])
    corrected = holm(p)
    # Bonferroni's share of alpha makes the limits hold for all pairs at once, as Tukey's do
    summaries = [over_trials(table[i] - table[j], confidence=1 - alpha / len(places)) for i, j in places]
    return tuple(
        Pair(
            a=names[i],
            b=names[j],
            mean_difference=summary.mean,
            ci_low=summary.low,
            ci_high=summary.high,
            p=float(p[at]),
            p_corrected=float(corrected[at]),
            cohens_d=effects.cohens_d_pooled(table[j], table[i]),
            significant=bool(corrected[at] < alpha),
        )
        for at, ((i, j), summary) in enumerate(zip(places, summaries, strict=True))
    )


def _without_test(table: Real, shapiro: dict[str, Normality], reason: str) -> GroupComparison:
    nan = float("nan")
    return GroupComparison(
        table.shape[1] if table.ndim == 2 else 0, NOT_APPLICABLE, NOT_APPLICABLE, nan, nan, nan, nan,
        effects.eta_squared(table), nan, nan, nan, shapiro, NOT_APPLICABLE, (), reason,
    )  # fmt: skip


def _why_not(table: Real) -> str | None:
    if table.shape[0] < 2:
        return "fewer than two defences"
    if table.shape[1] < 3:
        return "fewer than three trials"
    if all(is_constant(column) for column in table.T):
        return "every defence gave the same value in every trial"
    return None


def _levene(table: Real) -> float:
    from scipy import stats

    if any(is_constant(row) for row in table):
        return float("nan")
    with np.errstate(all="ignore"):
        return float(stats.levene(*table, center="median").pvalue)


def _table(samples: Mapping[str, ArrayLike]) -> Real:
    rows = [np.asarray(values, dtype=np.float64) for values in samples.values()]
    if len({row.shape for row in rows}) > 1 or any(row.ndim != 1 for row in rows):
        raise ValueError(f"samples has shapes {[row.shape for row in rows]}: allowed is one size, [n], for all")
    if any(np.isnan(row).any() for row in rows):
        raise ValueError("samples holds NaN: allowed are numbers")
    return np.array(rows).reshape(len(rows), -1 if rows else 0)
