"""The surrogates of a plan: models that the attacker trains, to find inputs on them that are shown to the targets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from titer.assess.models import ModelSpec, check_spec
from titer.core.errors import SpecError, unknown
from titer.core.record import ClinicalData, Recipe
from titer.core.registry import explain

PREFIX = "surrogate: "
"""How a surrogate's name begins among the sources of the tables."""


class SurrogatePlan(BaseModel):
    """One `[[surrogates]]` table of a plan.

    `data` says what the attacker learns from. `same`: the target's own training part. `other-site`: other patients,
    the rows of the training part whose subgroup column `group` has one of `values`, or, without a group, the
    validation part, of which no target learns its weights. `stolen`: the undefended target's answers to `queries`
    questions, asked with rows of the validation part and mixtures of them; `access` is what the target answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Annotated[str, Field(pattern=r"\S")]
    network: str | dict[str, Any]
    preprocess: Literal["standardize", "standardize-each", "unit", "none"] | dict[str, list[float]] | None = None
    data: Literal["same", "other-site", "stolen"] = "same"
    group: str | None = None
    values: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    queries: Annotated[int, Field(ge=10)] | None = None
    access: Literal["scores", "decision"] | None = None
    training: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Its name among the sources of the tables."""
        return f"{PREFIX}{self.label}"

    @property
    def stolen(self) -> bool:
        """Whether it is a copy of a target: then each model of the plan has a copy of its own."""
        return self.data == "stolen"

    @property
    def answers(self) -> Literal["scores", "decision"]:
        """What the target of a stolen copy answers."""
        return self.access or "scores"

    def spec(self) -> ModelSpec:
        """Return its network as a model of a plan."""
        return ModelSpec(label=self.name, network=self.network, preprocess=self.preprocess)

    def recipe(self, base: Recipe) -> Recipe:
        """Return how it is trained: the plan's recipe with this table's own settings.

        Raises:
            SpecError: an unknown setting, or a value out of its limits.
        """
        own = {**asdict(base), **self.training}
        try:
            return TypeAdapter(Recipe).validate_python(own)
        except ValidationError as error:
            where, allowed = f"surrogates.{self.label}.training", tuple(asdict(base))
            raise SpecError("; ".join(explain(where, dict(one), allowed) for one in error.errors())) from None


def check_surrogate(one: SurrogatePlan, base: Recipe) -> None:
    """Check what can be checked without the data.

    Raises:
        SpecError: an unknown network or setting, or a setting that this kind of data does not have.
    """
    where = f"surrogates.{one.label}"
    check_spec(one.spec(), where)
    one.recipe(base)
    theirs = {"other-site": ("group", "values"), "stolen": ("queries", "access"), "same": ()}
    for key in ("group", "values", "queries", "access"):
        if getattr(one, key) is not None and key not in theirs[one.data]:
            raise SpecError(f"{where}.{key} = {getattr(one, key)!r} is not allowed with data = {one.data!r}")
    if (one.group is None) != (one.values is None):
        given, lacking = ("group", "values") if one.group is not None else ("values", "group")
        raise SpecError(f"{where}.{given} needs {where}.{lacking}: the column, and which of its values")
    if one.stolen and one.queries is None:
        raise SpecError(f"{where}.queries is missing: how many rows the attacker may ask the target about, 10 or more")


def check_group(one: SurrogatePlan, data: ClinicalData) -> None:
    """Raise SpecError for a subgroup column that the data do not have, or a value that no row has."""
    if one.group is None:
        return
    parts = data.parts().values()
    columns = sorted({name for part in parts for name in part.groups})
    if not columns:
        raise SpecError(
            f"surrogates.{one.label}.group = {one.group!r} is not allowed: the data have no subgroup column"
        )
    if one.group not in columns:
        raise unknown(f"surrogates.{one.label}.group", one.group, columns)
    seen = sorted({value for part in parts for value in part.groups.get(one.group, ())})
    for value in one.values or ():
        if value not in seen:
            raise unknown(f"surrogates.{one.label}.values", value, seen)
