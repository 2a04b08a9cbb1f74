"""How plugins are written and made: one decorator a shelf, and `make` for those who use a plugin by its spec."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field

from titer.core.errors import ContractError, Incompatible, SpecError
from titer.core.needs import Needs
from titer.core.protocols import (
    Attack,
    Certifier,
    Cleaner,
    Defense,
    Detector,
    Estimator,
    Explainer,
    Modality,
    Poison,
    StreamDetector,
    Tamper,
)
from titer.core.record import ClinicalData
from titer.core.registry import SHELVES, Plugin, Spec, parse

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from titer.core.model import Model
    from titer.core.threat import Threat

Factory = TypeVar("Factory", bound=Callable[..., Any])

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


def attack(
    name: str,
    *,
    paper: str,
    threat_ids: tuple[str, ...],
    needs: Needs = Needs(),  # noqa: B008 - frozen
    minimal: bool = False,
    single_step: bool = False,
    joint: bool = False,
    nested: bool = False,
) -> Callable[[Factory], Factory]:
    """Register an evasion attack; it is called only with rows, and only where its needs are met.

    Args:
        name: its file's name with hyphens.
        paper: the source, with its equation.
        threat_ids: NIST AI 100-2e2025 and MITRE ATLAS ids.
        needs: access, norms, outputs, goals and mask; anything else is refused with the reason.
        minimal: it ignores eps and returns its nearest find.
        single_step: it takes one step; a search that does worse is broken (see `assess.sanity`).
        nested: it runs from the smallest budget of a family to the largest, and keeps what a smaller one allowed.
        joint: it finds one pattern for all rows, so that a row's outcome depends on the others.
    """
    traits = {"minimal": minimal, "single-step": single_step, "joint": joint, "nested": nested}
    register = _register(
        "attacks", name, paper, threat_ids, frozenset(trait for trait, holds in traits.items() if holds), needs
    )

    def guarded(factory: Factory) -> Factory:
        @wraps(factory)
        def made(**settings: Any) -> Attack:
            return Guarded(name, needs, factory(**settings))

        return cast(Factory, register(made))

    return guarded


@dataclass(frozen=True, slots=True)
class Guarded:
    """An attack that is called only with rows, and only where its needs are met; `run` is what the plugin returned."""

    name: str
    needs: Needs
    run: Attack

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        """Return proposals shaped as `x` [N, ...]; raise Incompatible with the reason where they cannot be made."""
        reason = self.needs.refused(self.name, threat, model)
        if reason is not None:
            raise Incompatible(reason)
        # Many a network cannot take a batch of no rows.
        return self.run(model, x.contiguous(), y, threat, rng=rng) if len(x) else x.clone()


def defense(
    name: str, *, paper: str, threat_ids: tuple[str, ...] = (), words: bool = False
) -> Callable[[Factory], Factory]:
    """Register a defence: a factory of a callable that trains or wraps a model.

    With `words` it defends models of notes too; one without it takes values for numbers, which ids of words are not.
    """
    return _register("defenses", name, paper, threat_ids, frozenset({"words"} if words else ()))


def poison(name: str, *, paper: str, threat_ids: tuple[str, ...]) -> Callable[[Factory], Factory]:
    """Register an attack on the training set: a factory of a callable that returns the poisoned training part."""
    return _register("poisons", name, paper, threat_ids, frozenset())


def cleaner(name: str, *, paper: str) -> Callable[[Factory], Factory]:
    """Register a search for poisoned rows: a factory of a callable that scores the rows of a training part."""
    return _register("cleaners", name, paper, (), frozenset())


def tamper(name: str, *, files: str, misses: str, threat_ids: tuple[str, ...]) -> Callable[[Factory], Factory]:
    """Register an attack on files: a factory of a callable that returns them tampered.

    Args:
        name: its file's name with hyphens.
        files: the format it takes: `dicom`, `dicom-series`, `vcf`, `expression`, `ecg`, `fastq`, `bam`.
        misses: the stock check that does not see it, and why, in a sentence.
        threat_ids: NIST AI 100-2e2025 and MITRE ATLAS ids.
    """
    return _register("tampers", name, misses, threat_ids, frozenset({files}))


def certifier(name: str, *, paper: str, norms: tuple[str, ...]) -> Callable[[Factory], Factory]:
    """Register a certifier: a factory of a callable that proves a radius for each row, in one of `norms`."""
    return _register("certifiers", name, paper, (), frozenset(norms))


def detector(
    name: str, *, paper: str, threat_ids: tuple[str, ...] = (), stream: bool = False
) -> Callable[[Factory], Factory]:
    """Register a detector: a factory of a callable that is fitted on clean data and then scores inputs.

    With `stream` it looks at batches instead, as a `StreamDetector`.
    """
    return _register("detectors", name, paper, threat_ids, frozenset({"stream"} if stream else ()))


def explainer(name: str, *, paper: str) -> Callable[[Factory], Factory]:
    """Register an explainer: a factory of a callable that says which values of an input a decision rests on."""
    return _register("explainers", name, paper, (), frozenset())


def modality(name: str) -> Callable[[Factory], Factory]:
    """Register a modality: a factory of a callable that loads clinical data with its rules."""
    return _register("modalities", name, "", (), frozenset())


def network(name: str, *, paper: str = "") -> Callable[[Factory], Factory]:
    """Register a reference architecture: a factory of a callable from (input shape, classes) to a network."""
    return _register("networks", name, paper, (), frozenset())


def estimator(name: str, *, paper: str) -> Callable[[Factory], Factory]:
    """Register a model that is no network: a factory of a callable that is fitted on a training part."""
    return _register("estimators", name, paper, (), frozenset())


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


def make_cleaner(spec: Spec, where: str = "cleaners") -> Cleaner:
    """Make a search for poisoned rows from its spec."""
    return cast(Cleaner, make("cleaners", spec, where))


def make_modality(spec: Spec, where: str = "data") -> Modality:
    """Make a modality from its spec."""
    return cast(Modality, make("modalities", spec, where))


def make_poison(spec: Spec, where: str = "poisons") -> Poison:
    """Make an attack on the training set from its spec."""
    return cast(Poison, make("poisons", spec, where))


def make_tamper(spec: Spec, where: str = "tampers") -> Tamper:
    """Make an attack on files from its spec."""
    return cast(Tamper, make("tampers", spec, where))


def make_certifier(spec: Spec, where: str = "certifiers") -> Certifier:
    """Make a certifier from its spec."""
    return cast(Certifier, make("certifiers", spec, where))


def make_estimator(spec: Spec, where: str = "estimators") -> Estimator:
    """Make an estimator from its spec."""
    return cast(Estimator, make("estimators", spec, where))


def make_detector(spec: Spec, where: str = "detectors") -> Detector:
    """Make a detector of single inputs from its spec; raise SpecError for one that watches streams."""
    if "stream" in plugin("detectors", spec, where).traits:
        raise SpecError(f"{where} = {parse(spec, where)[0]!r} watches streams: allowed are detectors of single inputs")
    return cast(Detector, make("detectors", spec, where))


def make_stream_detector(spec: Spec, where: str = "detectors") -> StreamDetector:
    """Make a detector of streams from its spec; raise SpecError for one of single inputs."""
    if "stream" not in plugin("detectors", spec, where).traits:
        raise SpecError(f"{where} = {parse(spec, where)[0]!r} scores single inputs: allowed are detectors of streams")
    return cast(StreamDetector, make("detectors", spec, where))


def make_explainer(spec: Spec, where: str = "explainers") -> Explainer:
    """Make an explainer from its spec."""
    return cast(Explainer, make("explainers", spec, where))


def load_data(spec: Spec, where: str = "data") -> ClinicalData:
    """Load the data set of a modality, checked."""
    return make_modality(spec, where)()


def _register(
    shelf: str,
    name: str,
    paper: str,
    threat_ids: tuple[str, ...],
    traits: frozenset[str],
    needs: Needs | None = None,
) -> Callable[[Factory], Factory]:
    def register(factory: Factory) -> Factory:
        stem = factory.__module__.rsplit(".", 1)[-1]
        if factory.__module__.startswith("titer.") and stem.replace("_", "-") != name:
            raise ContractError(f"plugin {name!r} stands in {stem}.py: a plugin is named as its file")
        title = (inspect.getdoc(factory) or "").split("\n", 1)[0].rstrip(".")
        SHELVES[shelf].add(
            Plugin(
                name=name,
                shelf=shelf,
                factory=factory,
                title=title,
                paper=paper,
                threat_ids=threat_ids,
                traits=traits,
                needs=needs,
            )
        )
        return factory

    return register
