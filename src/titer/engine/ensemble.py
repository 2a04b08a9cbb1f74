"""Attacks one after another, each next one on the rows that survived: the per-row worst case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Attention, Model
from titer.core.plugins import Guarded, make_attack
from titer.core.registry import Spec
from titer.core.threat import RANK, Access, Threat
from titer.engine.rows import blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Attacks in their order. `first` is a least-perturbation attack: its finds serve every budget of a family.

    The harness runs `first` once a family and `rest` under each budget; called as an attack, it runs all. `less` names
    other attacks for an attacker who sees less than gradients.
    """

    first: Guarded | None
    rest: tuple[Guarded, ...]
    less: Mapping[Access, tuple[Guarded, ...]] = field(default_factory=dict)

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        """Return the per-row worst case (see `strongest`)."""
        seen = min(model.access, threat.access, key=RANK.__getitem__)
        parts = self.rest if self.first is None else (self.first, *self.rest)
        return strongest(self.less.get(seen, parts), model, x, y, threat, rng=rng)

    def later(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        """Return the worst case over `rest` alone; the clean rows where none of them can run but `first` has."""
        if self.first is not None and not any(one.needs.refused(one.name, threat, model) is None for one in self.rest):
            return x.clone()
        return strongest(self.rest, model, x, y, threat, rng=rng)


def members(specs: Sequence[Spec], where: str) -> tuple[Guarded, ...]:
    """Make the attacks of an ensemble.

    Raises:
        SpecError: an unknown name or setting.
    """
    return tuple(cast(Guarded, make_attack(spec, f"{where}[{index}]")) for index, spec in enumerate(specs))


def strongest(
    ensemble: Sequence[Guarded], model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator
) -> Tensor:
    """Return for each row of `x` [N, ...] the first find that won under the threat, or else the last attack's.

    Of a randomised model, the find that wins most looks, and the first that wins them all. Attacks that cannot meet
    this model and threat are left out.

    Raises:
        Incompatible: none of them can.
    """
    able = [one for one in ensemble if one.needs.refused(one.name, threat, model) is None]
    if not able:
        reasons = "; ".join(str(one.needs.refused(one.name, threat, model)) for one in ensemble)
        raise Incompatible(f"no attack of the ensemble can run here: {reasons}")
    found, live = x.clone(), torch.arange(len(x), device=x.device)
    most = torch.zeros(len(x), device=x.device)
    for one in able:
        tried = one(_watching(model, live), x[live], y[live], threat, rng=rng)
        inside = threat.project(tried, x[live])
        success = _success(model, inside, x, y, live, threat, rng)
        better = success >= most[live]
        found[live[better]], most[live[better]] = inside[better], success[better]
        live = live[most[live] < 1]
        if not len(live):
            break
    return found


def _success(model: Model, x_adv: Tensor, x: Tensor, y: Tensor, live: Tensor, threat: Threat, rng: Generator) -> Tensor:
    """Return float[n]: the share of looks at which these finds reach the goal, 0 outside the threat."""
    inside = threat.contains(x_adv, x[live])
    parts = [rows.success(x_adv[rows.at]) for rows in blocks(_watching(model, live), x_adv, y[live], threat, rng)]
    return torch.cat(parts) * inside


def _watching(model: Model, live: Tensor) -> Model:
    """Return the model with its passes attributed to the rows `live` of the whole batch."""
    if model.meter is None:
        return model
    return replace(model, meter=_Places(model.meter, live))


@dataclass(frozen=True, slots=True)
class _Places:
    """A meter for a part of the batch."""

    meter: Attention
    live: Tensor

    def attend(self, rows: Tensor) -> None:
        """Attribute the coming passes to these rows of the part."""
        self.meter.attend(self.live[rows])
