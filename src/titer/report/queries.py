"""What black-box attacks cost an attacker: queries to success, and how often they succeed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from titer.report.numbers import Estimate, Numbers
from titer.report.study import Study
from titer.report.tallies import Tallies

_BUDGET_KEYS = ("queries", "max_queries", "query_budget", "budget")


@dataclass(frozen=True, slots=True)
class QueryRow:
    """One attack that used no gradient, on one defence at the largest budget of a family.

    Attributes:
        model: the base model.
        defense: label of the defence.
        attack: label of the attack.
        threat: label of the threat.
        access: the least that the attack needs to see, or, where the run does not say, what the threat lets it see.
        budget: queries that the plan allows for a row; None where it sets no limit of that name, and for an ensemble.
        spent: most queries that were spent on one row.
        median: median queries to success, over rows that were right when clean and fell.
        success: share of the rows that were right when clean and fell.
    """

    model: str
    defense: str
    attack: str
    threat: str
    access: str
    budget: int | None
    spent: float
    median: Estimate
    success: Estimate


def query_rows(study: Study, numbers: Numbers, tallies: Tallies) -> tuple[QueryRow, ...]:
    """Return one row per model, family, attack without gradients and defence that it searched on."""
    cells = tallies.cells
    cells = cells[(cells["source"].astype(object) == cells["defense"].astype(object)).to_numpy()]
    whole = cells.groupby(["model", "defense", "attack", "threat"], sort=False, observed=True).agg(
        forwards=("forwards", "sum"),
        backwards=("backwards", "sum"),
        spent=("most_forwards", "max"),
        access=("access", "first"),
    )
    blind = whole[(whole["backwards"] == 0) & (whole["forwards"] > 0)]
    found = [
        _row(study, numbers, (str(model), str(defense), str(attack), str(threat)), float(spent), str(access))
        for (model, defense, attack, threat), spent, access in zip(
            blind.index, blind["spent"], blind["access"], strict=True
        )
    ]
    order = [study.largest(family).label for family in study.families]
    kept = [row for row in found if row.threat in order]
    places = {attack.label: place for place, attack in enumerate(study.attacks)}
    return tuple(
        sorted(
            kept,
            key=lambda row: (
                study.models.index(row.model),
                order.index(row.threat),
                places.get(row.attack, len(places)),
                study.defenses.index(row.defense),
            ),
        )
    )


def _row(study: Study, numbers: Numbers, key: tuple[str, str, str, str], spent: float, access: str) -> QueryRow:
    model, defense, attack, threat = key
    plan = next((one for one in study.attacks if one.label == attack), None)
    return QueryRow(
        model=model,
        defense=defense,
        attack=attack,
        threat=threat,
        access=(plan.access if plan else "") or access,
        budget=_budget(plan.spec if plan else None),
        spent=spent,
        median=numbers.get(model, defense, attack, threat, "median_queries"),
        success=numbers.get(model, defense, attack, threat, "attack_success_rate"),
    )


def _budget(spec: Any) -> int | None:
    if not isinstance(spec, Mapping) or "attacks" in spec:  # an ensemble: the budget is one member's, not the whole's
        return None
    return next((int(spec[key]) for key in _BUDGET_KEYS if isinstance(spec.get(key), int)), None)
