"""How plugins are written and made: one decorator a shelf, and `make` for those who use a plugin by its spec."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field

from titer.core.errors import ContractError
from titer.core.protocols import Attack, Defense, Modality
from titer.core.record import ClinicalData
from titer.core.registry import SHELVES, Plugin, Spec, parse

Factory = TypeVar("Factory", bound=Callable[..., Any])

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


def attack(
    name: str, *, paper: str, threat_ids: tuple[str, ...], minimal: bool = False, single_step: bool = False
) -> Callable[[Factory], Factory]:
    """Register an evasion attack.

    Args:
        name: its file's name with hyphens.
        paper: the source, with its equation.
        threat_ids: NIST AI 100-2e2025 and MITRE ATLAS ids.
        minimal: it ignores eps and returns its nearest find.
        single_step: it takes one step; a search that does worse is broken (see `assess.sanity`).
    """
    traits = {"minimal": minimal, "single-step": single_step}
    return _register("attacks", name, paper, threat_ids, frozenset(name for name, holds in traits.items() if holds))


def defense(name: str, *, paper: str, threat_ids: tuple[str, ...] = ()) -> Callable[[Factory], Factory]:
    """Register a defence: a factory of a callable that trains or wraps a model."""
    return _register("defenses", name, paper, threat_ids, frozenset())


def modality(name: str) -> Callable[[Factory], Factory]:
    """Register a modality: a factory of a callable that loads clinical data with its rules."""
    return _register("modalities", name, "", (), frozenset())


def network(name: str, *, paper: str = "") -> Callable[[Factory], Factory]:
    """Register a reference architecture: a factory of a callable from (input shape, classes) to a network."""
    return _register("networks", name, paper, (), frozenset())


def plugin(shelf: str, spec: Spec, where: str = "") -> Plugin:
    """Return the plugin that `spec` names."""
    name, _ = parse(spec, where or shelf)
    return SHELVES[shelf].get(name, where or shelf)


def make(shelf: str, spec: Spec, where: str = "") -> Any:
    """Make a plugin from its spec: check its settings, then call its factory.

    Raises:
        SpecError: an unknown name or setting, or a value out of its limits.
    """
    where = where or shelf
    name, settings = parse(spec, where)
    found = SHELVES[shelf].get(name, where)
    return found.factory(**found.check(settings, where))


def make_attack(spec: Spec, where: str = "attacks") -> Attack:
    """Make an attack from its spec."""
    return cast(Attack, make("attacks", spec, where))


def make_defense(spec: Spec, where: str = "defenses") -> Defense:
    """Make a defence from its spec."""
    return cast(Defense, make("defenses", spec, where))


def make_modality(spec: Spec, where: str = "data") -> Modality:
    """Make a modality from its spec."""
    return cast(Modality, make("modalities", spec, where))


def load_data(spec: Spec, where: str = "data") -> ClinicalData:
    """Load the data set of a modality, checked."""
    return make_modality(spec, where)()


def _register(
    shelf: str, name: str, paper: str, threat_ids: tuple[str, ...], traits: frozenset[str]
) -> Callable[[Factory], Factory]:
    def register(factory: Factory) -> Factory:
        stem = factory.__module__.rsplit(".", 1)[-1]
        if factory.__module__.startswith("titer.") and stem.replace("_", "-") != name:
            raise ContractError(f"plugin {name!r} stands in {stem}.py: a plugin is named as its file")
        title = (inspect.getdoc(factory) or "").split("\n", 1)[0].rstrip(".")
        SHELVES[shelf].add(
            Plugin(
                name=name, shelf=shelf, factory=factory, title=title, paper=paper, threat_ids=threat_ids, traits=traits
            )
        )
        return factory

    return register
