"""Explanations of a plan: where a decision rests before and after an attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from titer.assess.explained_rows import Attempt, Flips, attempt, cell_of, flips_of
from titer.assess.explained_saliency import (
    affordable,
    example_arrays,
    explanations,
    frame,
    lesions_of,
    measures,
    row_columns,
)
from titer.assess.plan import AttackPlan
from titer.assess.study_parts import Found, Part, Study
from titer.assess.study_plans import ExplanationPlan
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_explainer, plugin
from titer.core.randomness import derive
from titer.core.registry import Spec, parse
from titer.core.threat import Threat
from titer.engine.features import in_parts, penultimate
from titer.stats.feature_map import feature_map, neighbours_alike

_VERSION = 1
NEIGHBOURS = 10
"""Clean rows that are looked at around each row in the feature space."""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One defended model under one threat; the attack runs once, when the first of its parts asks for it."""

    trial: Trial
    source: Defended
    attack: AttackPlan
    threat: Threat
    count: int

    @property
    def model(self) -> Model:
        assert self.source.model is not None
        return self.source.model

    @property
    def seed(self) -> int:
        names = (self.source.model_label, self.source.label, self.threat.name)
        return derive(self.trial.seed, "explanation", *names)

    @cached_property
    def attempt(self) -> Attempt:
        return attempt(self.trial, self.source, self.attack, self.threat, self.count)

    @cached_property
    def flips(self) -> Flips:
        return flips_of(self.model, self.attempt, seed=self.seed)

    def part(self, what: str, /, **own: Any) -> tuple[str, dict[str, Any]]:
        """Return a part's title and spec: its labels, and everything that its result depends on."""
        labels = {"attack": self.attack.label, "family": self.threat.family, "threat": self.threat.name}
        cell = cell_of(self.trial, self.source, self.attack, self.threat).id
        title = f"{what}, {self.attack.label}, {self.threat.name}"
        return title, labels | own | {"cell": cell, "rows": self.count, "version": _VERSION}


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    table = trial.plan.explanation
    assert table is not None
    for family in trial.plan.threats:
        largest = trial.threats(family)[-1]
        case = _Case(trial=trial, source=source, attack=_attack(trial, table), threat=largest, count=table.rows)
        yield from (_saliency(case, spec, index) for index, spec in enumerate(table.explainers))
        if not trial.number:
            yield _map(case)


def _attack(trial: Trial, table: ExplanationPlan) -> AttackPlan:
    attacks = trial.plan.attacks
    return next((one for one in attacks if one.label == table.attack), attacks[0])


def _saliency(case: _Case, spec: Spec, index: int) -> Part:
    where = f"explanation.explainers[{index}]"
    name, given = parse(spec, where)
    label = given.pop("label", None)
    found, settings = plugin("explainers", spec, where), ", ".join(f"{key} = {value}" for key, value in given.items())
    suffix = f" ({settings})" if settings else ""
    own = {"explainer": label or name + suffix, "title": label or found.title.split(",")[0] + suffix}
    title, labels = case.part(str(own["explainer"]), **own, settings=found.check(given, where))
    return Part(title=title, spec=labels, run=lambda: _explained(case, {"name": name, **given}, labels))


def _explained(case: _Case, spec: Spec, labels: Mapping[str, Any]) -> Found:
    """Explain the flipped rows by one explainer; raise Incompatible where attack or explainer cannot run."""
    explain, flips, model, seed = make_explainer(spec), case.flips, case.model, case.seed
    count = affordable(explain, model, flips, seed=seed, device=case.trial.device)
    facts = _counts(case) | {"explained": count, "noise_won": int(flips.noise_won[:count].sum())}
    if not count:
        return Found(frame=frame({}, 0), facts=facts)
    found = explanations(explain, model, flips, count, seed=seed)
    columns = {
        "kind": ["saliency"] * count,
        **{name: [labels[name]] * count for name in ("family", "threat", "attack", "explainer")},
        **row_columns(case.trial, case.attempt, flips.index[:count]),
        **measures(found, lesions_of(case.trial, case.attempt, flips, count)),
        "noise_won": flips.noise_won[:count].cpu().numpy(),
        "noise_length": flips.noise_length[:count].double().cpu().numpy(),
        "attacked": [True] * count,
        "flipped": [True] * count,
    }
    shown = {name: labels[name] for name in ("family", "threat", "attack", "explainer", "title")}
    kept = None
    if not case.trial.number:
        kept = example_arrays(case.trial, case.source, case.attempt, flips, found, shown)
    return Found(frame=frame(columns, count), facts=facts, arrays=kept)


def _map(case: _Case) -> Part:
    title, own = case.part("feature map", map="t-SNE", neighbours=NEIGHBOURS)
    return Part(title=title, spec=own, run=lambda: _mapped(case, own))


def _mapped(case: _Case, labels: Mapping[str, Any]) -> Found:
    """Lay clean and attacked rows out by the features before the last layer; Incompatible where there are none."""
    found, x = case.attempt, case.attempt.rows.x
    attacked = found.attacked.nonzero().flatten()
    if not len(attacked):
        raise Incompatible("no row was attacked: every one reached the goal before, or was proven safe")
    features = penultimate(case.model, x)
    # Features of very different sizes are left as the last layer reads them.
    clean, moved = (in_parts(features, rows).double().cpu().numpy() for rows in (x, found.x_adv[attacked]))
    placed = feature_map(clean, moved, seed=derive(case.seed, "map") % 2**32)
    index = torch.cat([torch.arange(len(x)), attacked.cpu()])
    known = row_columns(case.trial, found, index)
    alike = _neighbours(case, clean, moved, known["label"], index.numpy())
    moved_rows = torch.arange(len(index)) >= len(x)
    columns = {
        "kind": ["map"] * len(index),
        **{name: [labels[name]] * len(index) for name in ("family", "threat", "attack")},
        **known,
        "x": [*placed.clean[:, 0], *placed.attacked[:, 0]],
        "y": [*placed.clean[:, 1], *placed.attacked[:, 1]],
        "same_class_neighbours": alike,
        "attacked": moved_rows.numpy(),
        "flipped": (moved_rows & found.flipped.cpu()[index]).numpy(),
    }
    return Found(frame=frame(columns, len(index)), facts=_counts(case) | {"features": clean.shape[1]})


def _neighbours(case: _Case, clean: Any, moved: Any, labels: Any, index: Any) -> Any:
    """Return float64[n], NaN where rows have no class of their own."""
    import numpy as np

    if case.trial.data.output != "classes":
        return np.full(len(index), np.nan)
    return neighbours_alike(np.concatenate([clean, moved]), clean, labels[: len(clean)], index, count=NEIGHBOURS)


def _counts(case: _Case) -> dict[str, Any]:
    found = case.attempt
    return {
        "studied": len(found.rows),
        "attacked": int(found.attacked.sum()),
        "flipped": int(found.flipped.sum()),
    }


STUDY = Study(name="explanation", table=lambda plan: plan.explanation, parts=_parts)
