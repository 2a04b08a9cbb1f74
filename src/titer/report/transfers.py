"""Transfer: adversarial inputs found on one model and judged on another, source against target."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from titer.report.numbers import Estimate
from titer.report.study import Study
from titer.report.tallies import Tallies, pick

SURROGATE = "surrogate: "


@dataclass(frozen=True, slots=True)
class TransferMatrix:
    """Attack success of each source on each target, over all attacks, at the largest budget of a family.

    Attributes:
        model: the base model.
        family: the threat family.
        threat: label of its largest budget.
        sources: labels of the models on which attacks searched: defences, then surrogates.
        targets: labels of the defences whose models were judged.
        success: [source][target]: share of the target's rows that were right when clean, made wrong; nothing where the
            pair was not run. Where source and target are one, the attacker knows the model: white box.
    """

    model: str
    family: str
    threat: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    success: tuple[tuple[Estimate, ...], ...]


def transfer_matrices(study: Study, tallies: Tallies) -> tuple[TransferMatrix, ...]:
    """Return one matrix per model and family in which inputs were shown to a model that they were not found on."""
    found = [_matrix(study, tallies, model, family) for model in study.models for family in study.families]
    return tuple(one for one in found if one is not None)


def source_name(study: Study, source: str) -> str:
    """Return a source's name: a defence's title, or the surrogate with its kind in words."""
    if source.startswith(SURROGATE):
        return f"Surrogate: {source.removeprefix(SURROGATE)}"
    return study.defense_title(source)


def _matrix(study: Study, tallies: Tallies, model: str, family: str) -> TransferMatrix | None:
    threat = study.largest(family).label
    union = tallies.unions
    rows = union[pick(union, {"model": model, "threat": threat})]
    there = {str(source) for source in rows["source"].unique()}
    targets = tuple(one for one in study.defenses if one in set(rows["defense"].astype(str)))
    known = tuple(one for one in study.defenses if one in there)
    sources = (*known, *sorted(there - set(known)))
    if (rows["source"].astype(object) == rows["defense"].astype(object)).all():
        return None
    success = tuple(tuple(_success(rows, tallies, one, target) for target in targets) for one in sources)
    return TransferMatrix(model, family, threat, sources, targets, success)


def _success(rows: pd.DataFrame, tallies: Tallies, source: str, target: str) -> Estimate:
    pair = rows[pick(rows, {"source": source, "defense": target})]
    at_stake = pair[(pair["right"] & pair["eligible"]).to_numpy(dtype=bool)]
    return tallies.rate(at_stake.assign(hit=at_stake["lost"]))
