"""The plan: what a TOML file asks for, checked whole before anything runs."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titer.assess.models import ModelSpec
from titer.assess.plan_checks import NO_DEFENSE, WORST_CASE, check_plan
from titer.assess.study_plans import KEYS, CertificationPlan, DetectionPlan, ExplanationPlan, TransferPlan
from titer.assess.surrogate_plan import SurrogatePlan
from titer.core.errors import SpecError
from titer.core.plugins import make, plugin
from titer.core.record import ClinicalData, Recipe
from titer.core.registry import UNKNOWN_KEY, Spec, explain, parse
from titer.engine.fast import Precision

Transfer = Literal["undefended", "all", "none"]
"""Whose adversarial inputs the other defended models of the same model are shown as well."""

_PATHS = ("folder", "labels", "file", "patients")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ThreatPlan(_Table):
    """One family of threats: a norm with its budgets."""

    norm: str
    eps: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    unit: str
    family: str | None = None
    goal: str = "any-error"
    access: Literal["gradient", "scores", "decision"] = "gradient"
    mask: str | None = None
    features: tuple[str, ...] | None = None
    rules: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of the family in tables."""
        return self.family or self.norm


class DefensePlan(_Table):
    """One defended model: a defence, or several applied in order."""

    label: str | None = None
    defense: str | dict[str, Any] | tuple[str | dict[str, Any], ...]

    @property
    def chain(self) -> tuple[Spec, ...]:
        """The defences in the order in which they are applied; empty for `none`."""
        if self.defense == NO_DEFENSE:
            return ()
        return self.defense if isinstance(self.defense, tuple) else (self.defense,)

    @property
    def name(self) -> str:
        """Name of the defended model in tables."""
        return self.label or " + ".join(parse(spec, "defenses")[0] for spec in self.chain) or NO_DEFENSE


class _File(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str = ""
    trials: Annotated[int, Field(ge=1, le=100)] = 5
    seed: int = 0
    workers: Annotated[int, Field(ge=1)] | None = None
    test_rows: Annotated[int, Field(ge=10)] | None = None
    data: dict[str, Any]
    training: Recipe = Recipe()
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    attacks: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)]
    threats: Annotated[tuple[ThreatPlan, ...], Field(min_length=1)]
    defenses: tuple[DefensePlan, ...] = ()
    surrogates: tuple[SurrogatePlan, ...] = ()
    transfer: Transfer | TransferPlan = "undefended"
    precision: Precision = "float32"
    certification: CertificationPlan | None = None
    detection: DetectionPlan | None = None
    explanation: ExplanationPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackPlan:
    """One attack of the plan: the label in tables and the spec with every setting filled in."""

    label: str
    spec: dict[str, Any]
    minimal: bool
    single_step: bool = False
    nested: bool = False

    @property
    def whole_family(self) -> bool:
        """Whether one cell holds every budget of a family: the attack ignores eps, or builds on smaller ones."""
        return self.minimal or self.nested


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked plan. `source` is its text, byte for byte; `folder` is where its relative paths begin."""

    name: str
    title: str
    trials: int
    seed: int
    workers: int | None
    test_rows: int | None
    data: dict[str, Any]
    training: Recipe
    models: tuple[ModelSpec, ...]
    attacks: tuple[AttackPlan, ...]
    threats: tuple[ThreatPlan, ...]
    defenses: tuple[DefensePlan, ...]
    surrogates: tuple[SurrogatePlan, ...]
    transfer: Transfer
    precision: Precision
    certification: CertificationPlan | None
    detection: DetectionPlan | None
    explanation: ExplanationPlan | None
    between: TransferPlan | None
    source: bytes
    folder: Path

    @property
    def has_studies(self) -> bool:
        """Whether anything but attacks is asked."""
        return any(one is not None for one in (self.certification, self.detection, self.explanation, self.between))

    def digest(self) -> str:
        """Return the sha256 of the plan's text."""
        return hashlib.sha256(self.source).hexdigest()

    def load_data(self) -> ClinicalData:
        """Load the plan's data set, checked."""
        data: ClinicalData = make("modalities", self.data, "data")()
        return data


def load_plan(path: Path | str) -> Plan:
    """Read and check a plan.

    Raises:
        SpecError: no such file, no TOML, or a setting that is unknown, missing or out of its limits; all at once.
    """
    path = Path(path)
    try:
        source = path.read_bytes()
        table = tomllib.loads(source.decode())
    except FileNotFoundError:
        raise SpecError(f"plan = {str(path)!r}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"plan = {str(path)!r} is not a readable TOML file: {error}") from None
    return parse_plan(table, source, path.resolve().parent)


def parse_plan(table: dict[str, Any], source: bytes, folder: Path) -> Plan:
    """Check a plan's table; see `load_plan`."""
    try:
        file = _File.model_validate(table)
    except ValidationError as error:
        raise SpecError("; ".join(explain("", dict(e), _allowed(e["loc"])) for e in _deepest(error))) from None
    attacks = tuple(_attack(spec, i) for i, spec in enumerate(file.attacks))
    defenses = file.defenses
    if not any(not one.chain for one in defenses):
        defenses = (DefensePlan(defense=NO_DEFENSE), *defenses)
    defenses = tuple(sorted(defenses, key=lambda one: bool(one.chain)))
    plan = Plan(
        name=file.name,
        title=file.title or file.name,
        trials=file.trials,
        seed=file.seed,
        workers=file.workers,
        test_rows=file.test_rows,
        data=_resolved(file.data, folder),
        training=file.training,
        models=file.models,
        attacks=attacks,
        threats=file.threats,
        defenses=defenses,
        surrogates=file.surrogates,
        transfer=file.transfer.shown_to if isinstance(file.transfer, TransferPlan) else file.transfer,
        precision=file.precision,
        certification=file.certification,
        detection=file.detection,
        explanation=file.explanation,
        between=_between(file.transfer, folder),
        source=source,
        folder=folder,
    )
    check_plan(plan)
    return plan


def _deepest(error: ValidationError) -> list[Any]:
    """Return one error a place, without the echoes of an error that pydantic adds around it or for each alternative."""
    best: dict[tuple[Any, ...], Any] = {}
    for one in error.errors():
        unknown_key = one["loc"][-1:] if one["type"] in UNKNOWN_KEY else ()
        known = one["loc"][: len(one["loc"]) - len(unknown_key)]
        place = (*(part for part in known if isinstance(part, int) or part in _KEYS), *unknown_key)
        best.setdefault(place, {**one, "loc": place or one["loc"]})
    inner = set(best)
    return [one for place, one in best.items() if not any(place == other[: len(place)] != other for other in inner)]


_KEYS = {
    *_File.model_fields,
    *ThreatPlan.model_fields,
    *DefensePlan.model_fields,
    *SurrogatePlan.model_fields,
    *ModelSpec.__dataclass_fields__,
    *Recipe.__dataclass_fields__,
    *(key for keys in KEYS.values() for key in keys),
}


def _allowed(place: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the keys that are allowed in the table where an unknown one stands."""
    tables: dict[str, tuple[str, ...]] = {
        "threats": tuple(ThreatPlan.model_fields),
        "defenses": tuple(DefensePlan.model_fields),
        "surrogates": tuple(SurrogatePlan.model_fields),
        "models": tuple(ModelSpec.__dataclass_fields__),
        "training": tuple(Recipe.__dataclass_fields__),
        **KEYS,
    }
    return tables.get(str(place[0]), tuple(_File.model_fields)) if len(place) > 1 else tuple(_File.model_fields)


def _resolved(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the data settings with relative paths taken from the plan's folder."""
    return {k: str(folder / v) if k in _PATHS and isinstance(v, str) else v for k, v in data.items()}


def _between(given: Transfer | TransferPlan, folder: Path) -> TransferPlan | None:
    """Return the transfer study, its data sets with their paths taken from the plan's folder."""
    if not isinstance(given, TransferPlan):
        return None
    return given.model_copy(update={"data": tuple(_resolved(one, folder) for one in given.data)})


def _attack(spec: Spec, index: int) -> AttackPlan:
    where = f"attacks[{index}]"
    name, settings = parse(spec, where)
    label = settings.pop("label", name)
    found = plugin("attacks", {"name": name}, where)
    full = {"name": name, **found.check(settings, where)}
    single = "single-step" in found.traits or full.get("steps") == 1
    return AttackPlan(
        label=f"{name} ensemble" if label == WORST_CASE == name else str(label),  # the tables' own union is called so
        spec=full,
        minimal="minimal" in found.traits,
        single_step=single,
        nested="nested" in found.traits,
    )


def spec_text(spec: Any) -> str:
    """Return a spec as canonical JSON: what digests and labels are made of."""
    return json.dumps(spec, sort_keys=True, default=str)
