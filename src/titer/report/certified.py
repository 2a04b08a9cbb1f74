"""Certified accuracy beside robust accuracy: the study's numbers, and what the template shows of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from titer.report.certified_page import certified_page
from titer.report.certified_rows import AtBudget, Certificate, CertifiedCurve, Median, Refusal
from titer.report.load import RunFolder
from titer.report.shares import Real, bounds, share, wilson
from titer.report.study import Study, Threat
from titer.report.tallies import pick

_STEPS = 160  # more than a figure of this width can show
_SAME = 1e-6
_ROW = ["trial", "sample_id"]


@dataclass(frozen=True, slots=True)
class Certified:
    """The numbers of the study; they stand in `report.json` as they are here.

    Attributes:
        certificates: one entry per model, threat family, certifier and defence that it could bound.
        refusals: what was not certified, and why; one entry per certifier and reason.
    """

    certificates: tuple[Certificate, ...]
    refusals: tuple[Refusal, ...]


def certified(run: RunFolder, study: Study) -> Certified | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    if "certification" not in run.studies:
        return None
    found, parts = run.studies["certification"], run.studies["certification"].parts
    facts: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for part in parts:
        if "facts" in part:
            one = part["facts"]
            key = (str(part["model"]), str(one["threat_family"]), str(one["certifier"]), str(part["defense"]))
            facts.setdefault(key, []).append(one)
    known = {key: some for key, some in facts.items() if key[1] in study.families}
    certificates = [_certificate(run, study, key, some, _rows_of(found.rows, key)) for key, some in known.items()]
    return Certified(tuple(sorted(certificates, key=lambda one: _place(study, one))), _refusals(study, parts))


def certified_context(found: Certified | None, study: Study) -> dict[str, Any] | None:
    """Return what the template shows, None where there is nothing."""
    return None if found is None else certified_page(found.certificates, found.refusals, study)


def _place(study: Study, one: Certificate) -> tuple[int, ...]:
    """Order by model, family, and defence: the certifiers of one defence stand side by side, in the plan's order."""
    defense = study.defenses.index(one.defense) if one.defense in study.defenses else len(study.defenses)
    return study.models.index(one.model), list(study.families).index(one.family), defense


def _rows_of(rows: pd.DataFrame, key: tuple[str, str, str, str]) -> pd.DataFrame:
    return rows[pick(rows, dict(zip(("model", "threat_family", "certifier", "defense"), key, strict=True)))]


def _certificate(
    run: RunFolder, study: Study, key: tuple[str, str, str, str], facts: list[dict[str, Any]], rows: pd.DataFrame
) -> Certificate:
    model, family, certifier, defense = key
    one = facts[0]
    met = _withstood(run, model, defense, family, rows)
    met = met.iloc[:0] if one["about"] == "another" else met
    rows = rows[rows["eligible"].to_numpy(dtype=bool)]
    n = _independent(rows)
    right = rows[rows["holds"].to_numpy(dtype=bool)]
    samples = one.get("samples_per_row")
    return Certificate(
        model=model,
        family=family,
        defense=defense,
        defense_title=study.defense_title(defense),
        certifier=certifier,
        title=str(one["title"]),
        about=str(one["about"]),
        confidence=min(float(each["confidence"]) for each in facts),
        goal=study.largest(family).goal,
        rows=round(len(rows) / max(1, len(facts))),
        trials=len(facts),
        budgets=tuple(_at(rows, met, threat, n) for threat in study.families[family]),
        curve=_curve(rows, float(one["eps"]), n),
        median_radius=_median(right["radius"].to_numpy(dtype=np.float64), float(one["eps"]), _independent(right)),
        abstained=share(_per_trial(rows, (rows["prediction"] < 0).to_numpy()), n),
        cpu_seconds_per_row=float(np.mean([each["cpu_seconds_per_row"] for each in facts])),
        samples_per_row=None if samples is None else int(samples),
    )


def _independent(rows: pd.DataFrame) -> float:
    """Return how many independent patients a trial has, mean over trials: what an interval may count."""
    return float(rows.groupby("trial")["patient_id"].nunique().mean()) if len(rows) else 0.0


def _per_trial(rows: pd.DataFrame, hit: np.ndarray[Any, Any]) -> Real:
    """Return the share of `hit` bool[n] in each trial: [trials]."""
    return rows.assign(hit=hit.astype(float)).groupby("trial")["hit"].mean().to_numpy(dtype=np.float64)


def proven(rows: pd.DataFrame, eps: float) -> np.ndarray[Any, Any]:
    """Return bool[n]: what the attacker wants is proven impossible within eps.

    Radii are float32, and a row that was proven at the largest budget has that budget for its radius.
    """
    reach = rows["radius"].to_numpy(dtype=np.float32) >= np.float32(eps)
    return np.asarray(reach & rows["holds"].to_numpy(dtype=bool))


def _at(rows: pd.DataFrame, met: pd.DataFrame, threat: Threat, n: float) -> AtBudget:
    """Return what is proven at one budget, what no attack broke, and what is neither, all of the same rows."""
    safe = proven(rows, threat.eps)
    found = rows[_ROW].assign(safe=safe).merge(met[met["threat"] == threat.label], on=_ROW, how="inner")
    held = found["held"].to_numpy(dtype=bool)
    unknown = held & ~found["safe"].to_numpy(dtype=bool)
    return AtBudget(
        threat=threat.label,
        eps=threat.eps,
        proven=share(_per_trial(rows, safe), n),
        withstood=share(_per_trial(found, held), n),
        neither=share(_per_trial(found, unknown), n),
    )


def _withstood(run: RunFolder, model: str, defense: str, family: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return, of the certified rows, trial, sample, threat and whether every attack that knew the defence failed."""
    wanted = {"model": model, "defense": defense, "source": defense, "threat_family": family}
    found = run.outcomes[pick(run.outcomes, wanted) & (run.outcomes["attack"] != "none").to_numpy(dtype=bool)]
    found = found[found["sample_id"].isin(set(rows["sample_id"])).to_numpy(dtype=bool)]
    found = found[["trial", "sample_id", "threat", "won"]].astype({"sample_id": object, "threat": object, "won": bool})
    lost = found.groupby(["trial", "sample_id", "threat"], sort=False)["won"].any().reset_index()
    return lost.assign(held=~lost["won"].to_numpy(dtype=bool))


def _curve(rows: pd.DataFrame, eps: float, n: float) -> CertifiedCurve:
    """Return certified accuracy from radius 0 to eps: the share whose radius reaches each place, before it falls."""
    radius = np.where(rows["holds"].to_numpy(dtype=bool), rows["radius"].to_numpy(dtype=np.float64), -1.0)
    inner = np.unique(radius[(radius > 0) & (radius < eps * (1 - _SAME))])
    places = np.concatenate([[0.0], inner[:: max(1, math.ceil(inner.size / _STEPS))], [eps]])
    trials = [np.sort(part) for part in (radius[(rows["trial"] == t).to_numpy()] for t in rows["trial"].unique())]
    if not trials:
        return CertifiedCurve((), (), (), ())
    left = np.stack([1 - np.searchsorted(each, places * (1 - _SAME), side="left") / each.size for each in trials])
    low, high = bounds(left, n)
    band = np.minimum.accumulate(low), np.maximum.accumulate(high[::-1])[::-1]  # the share cannot rise
    return CertifiedCurve(_rounded(places), *(_rounded(one) for one in (left.mean(axis=0), *band)))


def _rounded(values: Real) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)


def _median(radii: Real, eps: float, n: float) -> Median:
    """Return the median radius of the rows that are right, with Woodruff's interval (1952, J. Am. Stat. Assoc. 47:635).

    The limits of a share of one half, by Wilson, are read off the radii. No radius beyond eps was looked for.
    """
    if not radii.size or not n > 0:
        return Median(None, None, None, capped=False)
    low, high = (float(one) for one in wilson(np.array(0.5), n))
    at = np.quantile(radii, [0.5, low, high], method="inverted_cdf")
    middle, least, most = (float(one) for one in at)
    return Median(middle, least, most, capped=middle >= eps * (1 - _SAME))


def _refusals(study: Study, parts: tuple[dict[str, Any], ...]) -> tuple[Refusal, ...]:
    """Return what was not certified, grouped by certifier and reason."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for part in parts:
        if "skipped" in part:
            certifier = str((part.get("spec") or {}).get("certifier") or "every certifier")
            groups.setdefault((certifier, str(part["skipped"]).strip().rstrip(".")), []).append(part)
    several = len(study.models) > 1
    return tuple(
        Refusal(
            certifier=certifier,
            reason=reason,
            defenses=tuple(
                dict.fromkeys(
                    (f"{part['model']}: " if several else "") + study.defense_title(str(part["defense"]))
                    for part in some
                )
            ),
            families=tuple(
                dict.fromkeys(str((part.get("spec") or {}).get("threat_family") or "every threat") for part in some)
            ),
            parts=len(some),
        )
        for (certifier, reason), some in groups.items()
    )
