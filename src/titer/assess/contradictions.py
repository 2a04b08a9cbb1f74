"""Certificates held against attacks: what is proven must not have been broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titer.assess.agreement import ALARM, FAIL, Finding, not_applicable, result

UNSOUND = "certificate unsound"
SMOOTHED_ONLY = "the certificate does not carry over to the model's own answers"
_ROUNDING = 1e-4
_CHANCE = 0.05
_ROW = ["trial", "sample_id"]


def certificate_checks(out: Path, outcomes: pd.DataFrame) -> list[dict[str, Any]]:
    """Hold every certificate of a run folder against every attack that met the same row of the same model.

    Returns one check for each model, defence, family of threats and certifier that came back with certificates; none
    where the plan asked for no certification.
    """
    notes, table = out / "certification.json", out / "certification.parquet"
    if not notes.is_file() or not table.is_file():
        return []
    rows = pd.read_parquet(table)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for part in json.loads(notes.read_text())["parts"]:
        if "facts" in part:
            facts = part["facts"]
            key = (part["model"], part["defense"], facts["threat_family"], facts["certifier"])
            groups.setdefault(key, []).append(facts)
    return [_check(key, facts, rows, outcomes) for key, facts in groups.items()]


def _check(
    key: tuple[str, ...], facts: Sequence[dict[str, Any]], certificates: pd.DataFrame, outcomes: pd.DataFrame
) -> dict[str, Any]:
    model, defense, family, certifier = key
    labels = {"model": model, "defense": defense, "threat_family": family, "certifier": certifier}
    proof = all(one["about"] == "model" for one in facts)
    check = labels | {"check": "certificate-contradicted", "consequence": UNSOUND if proof else SMOOTHED_ONLY}
    if any(one["about"] == "another" for one in facts):
        reason = f"{certifier} certifies the class that noise gives most often, and no attack of the run met that model"
        return check | not_applicable(reason)
    proven = _of(certificates, key[:3])
    proven = proven[(proven["certifier"] == certifier) & proven["holds"] & (proven["radius"] > 0)]
    met = _attacked(_of(outcomes, key[:3]), facts[0]["norm"])
    pairs = proven.merge(met, on=_ROW, how="inner")
    pairs = pairs[pairs["smallest_eps"].astype(np.float32) <= pairs["radius"]]
    if pairs.empty:
        return check | not_applicable(f"no attack met a row inside a radius that {certifier} proves")
    lost = pairs[contradicted(pairs)]
    if proof:
        return check | result(_proof(certifier, pairs, lost), FAIL)
    wrong = round(1 - min(float(one["confidence"]) for one in facts), 12)
    return check | result(_sampled(certifier, pairs, lost, wrong), ALARM)


def contradicted(pairs: pd.DataFrame) -> pd.Series:
    """Return bool[n]: the row was lost under a budget, or at a distance, that its radius covers.

    `radius` is float32, so budgets are compared as float32; a distance must be clearly inside, as it is rounded.
    """
    budget = pairs["lost_eps"].astype(np.float32) <= pairs["radius"]
    near: pd.Series = budget | (pairs["lost_distance"] < pairs["radius"] * (1 - _ROUNDING))
    return near


def _of(table: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of one model, defence and family of threats."""
    for column, value in zip(("model", "defense", "threat_family"), key, strict=True):
        table = table[(table[column] == value).to_numpy(dtype=bool)]
    return table


def _attacked(rows: pd.DataFrame, norm: str) -> pd.DataFrame:
    """Return one row for each attacked one: the smallest budget it met, and the smallest budget and distance lost."""
    rows = rows[(rows["attack"] != "none").to_numpy(dtype=bool)]
    won = rows["won"].to_numpy(dtype=bool)
    found = rows[[*_ROW, "eps"]].assign(
        lost_eps=rows["eps"].where(won, np.inf).astype(float),
        lost_distance=rows[f"distance_{norm}"].where(won, np.inf).astype(float),
    )
    return (
        found.groupby(_ROW, sort=False, observed=True)
        .agg(smallest_eps=("eps", "min"), lost_eps=("lost_eps", "min"), lost_distance=("lost_distance", "min"))
        .reset_index()
    )


def _proof(certifier: str, pairs: pd.DataFrame, lost: pd.DataFrame) -> Finding:
    """Return what to tell of a proof: a single contradiction is one too many."""
    count, share = f"{len(lost)} of {len(pairs)}", len(lost) / len(pairs)
    comfort = f"no attack won any of {len(pairs)} rows inside the radius that {certifier} proves"
    if lost.empty:
        return Finding(value=share, limit=0.0, fails=False, doubt="", comfort=comfort)
    first = lost.iloc[0]
    doubt = (
        f"attacks won {count} rows inside the radius that {certifier} proves, such as {first['sample_id']} of trial "
        f"{first['trial'] + 1} (radius {first['radius']:g}, lost at a distance of {first['lost_distance']:g}): the "
        "proof is wrong, and attacks that passed over rows proven safe may have missed more"
    )
    return Finding(value=share, limit=0.0, fails=True, doubt=doubt, comfort=comfort)


def _sampled(certifier: str, pairs: pd.DataFrame, lost: pd.DataFrame, wrong: float) -> Finding:
    """Return what to tell of certificates that are each wrong with a probability of `wrong` at most.

    More losses than chance explains (binomial tail below 5 %) do not refute them: they are of the class that noise
    gives most often, and the model that attacks met answers from a few draws.
    """
    from scipy.stats import binom

    count = f"{len(lost)} of {len(pairs)} rows"
    tail = float(binom.sf(len(lost) - 1, len(pairs), wrong))
    doubt = (
        f"attacks won {count} inside the radius that {certifier} certifies, where at most {100 * wrong:.2g}% of the "
        "certificates may be wrong: they are of the class that noise gives most often, and the model answers from a "
        "few draws only"
    )
    comfort = (
        f"attacks won {count} inside the radius that {certifier} certifies: no more than chance explains where each "
        f"certificate is wrong with a probability of at most {100 * wrong:.2g}%"
    )
    return Finding(value=len(lost) / len(pairs), limit=wrong, fails=tail < _CHANCE, doubt=doubt, comfort=comfort)
