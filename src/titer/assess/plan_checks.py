"""What a plan is checked for beyond its single tables: plugins, labels, and whether it fits its data."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from titer.assess.models import check_spec
from titer.assess.study_plans import study_problems
from titer.assess.surrogate_plan import PREFIX, check_group, check_surrogate
from titer.core.errors import SpecError, unknown
from titer.core.plugins import make
from titer.core.record import ClinicalData
from titer.core.registry import parse

if TYPE_CHECKING:
    from titer.assess.plan import Plan, ThreatPlan

NO_DEFENSE = "none"
WORST_CASE = "worst-case"
COUNTED = "values"


def check_plan(plan: Plan) -> None:
    """Check what no single table can: plugins, and labels that must differ."""
    problems: list[str] = []
    for model in plan.models:
        problems += _tried(lambda model=model: check_spec(model, f"models.{model.label}"))
    for one in plan.defenses:
        for spec in one.chain:
            problems += _tried(lambda spec=spec, one=one: make("defenses", spec, f"defenses.{one.name}"))
    for other in plan.surrogates:
        problems += _tried(lambda other=other: check_surrogate(other, plan.training))
    problems += _reserved(plan)
    problems += study_problems(plan)
    name = parse(plan.data, "data")[0]
    problems += _tried(lambda: make("modalities", plan.data, f"data.{name}"))
    for what, labels in (
        ("models", [m.label for m in plan.models]),
        ("attacks", [a.label for a in plan.attacks]),
        ("defenses", [d.name for d in plan.defenses]),
        ("threats", [t.label for t in plan.threats]),
        ("surrogates", [s.label for s in plan.surrogates]),
    ):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            setting = "threats.family" if what == "threats" else f"{what}.label"
            problems.append(f"{setting} = {twice[0]!r} stands twice: each needs a name of its own")
    problems += [
        f"threats.{t.label}.eps = {list(t.eps)} names a budget twice"
        for t in plan.threats
        if len(set(t.eps)) < len(t.eps)
    ]
    if problems:
        raise SpecError("; ".join(problems))


def _reserved(plan: Plan) -> list[str]:
    """Return what is wrong with labels that tables give a meaning of their own."""
    problems = [
        f"attacks.label = {one.label!r} is not allowed: tables use that name themselves"
        for one in plan.attacks
        if one.label in (NO_DEFENSE, WORST_CASE)
    ]
    problems += [
        f"defenses.label = {one.name!r} is not allowed: {NO_DEFENSE!r} names the undefended model, and it alone"
        for one in plan.defenses
        if bool(one.chain) == (one.name == NO_DEFENSE)
    ]
    problems += [
        f"defenses.label = {one.name!r} is not allowed: {PREFIX!r} begins the names of surrogates"
        for one in plan.defenses
        if one.name.startswith(PREFIX)
    ]
    return problems


def _tried(step: Any) -> list[str]:
    try:
        step()
    except SpecError as error:
        return [str(error)]
    return []


def check_against(plan: Plan, data: ClinicalData) -> None:
    """Check what depends on the data: units, budgets, features, goals; raise SpecError for the first problem."""
    for i, threat in enumerate(plan.threats):
        where = f"threats[{i}]"
        if threat.norm == "l0":
            _check_count(threat, data, where)
        else:
            check_unit(f"{where}.unit", threat.unit, data)
        limit = _largest(threat, data)
        if limit is not None and max(threat.eps) > limit:
            raise SpecError(
                f"{where}.eps = {max(threat.eps):g} with unit = {threat.unit!r} is more than the whole value range "
                f"({limit:g} {threat.unit}): is it in another unit? allowed units are {', '.join(data.units)}"
            )
        _check_names(f"{where}.rules", threat.rules, data.rules)
        _check_names(f"{where}.features", threat.features or (), data.feature_names or ())
    _check_sites(plan, data)
    for other in plan.surrogates:
        check_group(other, data)
    for one in plan.defenses:
        for spec in one.chain:
            unit = parse(spec, "defenses")[1].get("unit")
            if unit is not None:
                check_unit(f"defenses.{one.name}.unit", str(unit), data)


def _check_sites(plan: Plan, data: ClinicalData) -> None:
    """Raise SpecError where a transfer study names a column of sites that the data set does not have."""
    column = None if plan.between is None else plan.between.sites
    known = set.intersection(*(set(part.groups) for part in data.parts().values()))
    if column is not None and column not in known:
        allowed = ", ".join(sorted(known)) or "none: this data set has no subgroup columns"
        raise SpecError(f"transfer.sites = {column!r} is no column of the data: allowed are {allowed}")


def _check_names(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise SpecError for the first name that the data set does not have."""
    for name in given:
        if name not in known:
            raise unknown(where, name, known)


def check_unit(where: str, unit: str, data: ClinicalData) -> None:
    """Raise SpecError for a unit that the data set does not have."""
    if unit not in data.units:
        raise unknown(where, unit, data.units)


def _check_count(threat: ThreatPlan, data: ClinicalData, where: str) -> None:
    """Raise SpecError for an l0 budget that counts no values, or more than an input has."""
    if threat.unit != COUNTED:
        raise SpecError(f"{where}.unit = {threat.unit!r} is not allowed with norm = 'l0': it counts {COUNTED!r}")
    width = next(iter(data.parts().values())).x.shape[1:].numel()
    wrong = [eps for eps in threat.eps if eps != int(eps) or not 1 <= eps <= width]
    if wrong:
        raise SpecError(
            f"{where}.eps = {wrong[0]:g} is not allowed with norm = 'l0': allowed are whole numbers, 1 to {width}"
        )


def _largest(threat: ThreatPlan, data: ClinicalData) -> float | None:
    if data.value_range is None or threat.norm != "linf" or data.units[threat.unit] == "sd":
        return None
    size = data.units[threat.unit]
    return (data.value_range[1] - data.value_range[0]) / float(size)
