"""One trial: its split, its models trained or loaded, and its threats in raw units."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from titer.assess.models import ModelSpec, build, pretrained
from titer.assess.patients import drawn_patients, few
from titer.assess.plan import DefensePlan, Plan, ThreatPlan, spec_text
from titer.assess.plan_checks import COUNTED
from titer.assess.regions import asked
from titer.assess.remote import forget_outages
from titer.assess.strata import strata
from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.core.protocols import Progress, TrainingData, silent
from titer.core.randomness import derive, generator
from titer.core.record import ClinicalData, Recipe, Samples, Split
from titer.core.registry import Spec
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.naming import goal
from titer.training.loop import fit
from titer.training.objectives import standard
from titer.training.one_class import own_objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial of a plan: everything that its number and the plan's seed decide."""

    number: int
    seed: int
    plan: Plan
    data: ClinicalData
    data_digest: str
    split: Split
    units: dict[str, Tensor]
    cache: Path
    device: str
    progress: Progress = silent

    def training_data(self, recipe: Recipe) -> TrainingData:
        """Return what training and defences may see: never the test part."""
        return TrainingData(
            train=self.split.train.to(self.device),
            validation=self.split.validation.to(self.device),
            classes=len(self.data.classes),
            domain=self.data.domain,
            units=self.units,
            recipe=recipe,
            value_range=self.data.value_range,
            device=self.device,
            cache=self.cache,
            progress=self.progress,
            output=self.data.output,
        )

    def check_models(self) -> None:
        """Build every model of the plan once; raise SpecError for what is wrong, before anything is written."""
        for spec in self.plan.models:
            with suppress(Incompatible):  # a remote model that is down fails its own cells, not the plan
                self.untrained(spec)

    def untrained(self, spec: ModelSpec) -> Model:
        """Return the model as it is before training, or with the weights that it comes with."""
        return build(
            spec,
            self.data,
            self.split.train,
            folder=self.plan.folder,
            seed=self._base_seed(spec),
            device=self.device,
            where=f"models.{spec.label}",
        )

    def _base_seed(self, spec: ModelSpec) -> int:
        return derive(self.seed, "base", spec.label)

    def base(self, spec: ModelSpec) -> Model:
        """Return the undefended model: loaded, or trained by the plan's recipe."""
        model = self.untrained(spec)
        if pretrained(spec):
            return model
        data = self.training_data(self.plan.training)
        assert model.net is not None
        objective = own_objective(model.net, data) or standard(data)
        return fit(model, model.net, data, objective, seed=derive(self._base_seed(spec), "training"))

    def defended(self, spec: ModelSpec, chain: tuple[Spec, ...]) -> Model:
        """Return the model behind a chain of defences, applied in order.

        A defence draws from a seed of its own place in the chain, so that a shared beginning is trained once.
        """
        if not chain:
            return self.base(spec)
        before = self.defended(spec, chain[:-1])
        rng = generator(self.seed, "defense", spec.label, spec_text(chain))
        defended = make_defense(chain[-1])(before, self.training_data(self.plan.training), rng=rng)
        return replace(defended, provenance=dict(defended.provenance) | {"defenses": spec_text(chain)})

    def threats(self, plan: ThreatPlan) -> tuple[Threat, ...]:
        """Return the family's threats, smallest budget first."""
        data, scale, where = self.data, self.units[plan.unit], f"threats.{plan.label}"
        family = Threat(
            family=plan.label,
            budget=ball(plan.norm, max(plan.eps), scale, plan.unit, where),
            domain=(*data.domain, *asked(plan, data, self.plan.folder)),
            goal=goal(plan.goal, data.classes, where, data.output, data.tolerance),
            access=plan.access,
        )
        return tuple(family.at(eps) for eps in sorted(plan.eps))


@lru_cache(maxsize=2)
def _loaded(source: bytes, folder: Path) -> tuple[ClinicalData, str]:
    import tomllib

    from titer.assess.plan import parse_plan

    data = parse_plan(tomllib.loads(source.decode()), source, folder).load_data()
    return data, data.digest()


def open_trial(plan: Plan, number: int, *, cache: Path, device: str = "cpu", progress: Progress = silent) -> Trial:
    """Load the plan's data (once a process) and split it for one trial."""
    data, digest = _loaded(plan.source, plan.folder)
    seed = trial_seed(plan, number)
    split = split_by_patient(data, derive(seed, "split"))
    if plan.test_rows is not None:
        split = replace(split, test=drawn(split.test, data, plan.test_rows, derive(seed, "test rows")))
    return Trial(
        number=number,
        seed=seed,
        plan=plan,
        data=data,
        data_digest=digest,
        split=split,
        units=resolve_units(data, split.train),
        cache=cache,
        device=device,
        progress=progress,
    )


def trial_seed(plan: Plan, number: int) -> int:
    """Return the seed of one trial, from which all its others derive."""
    return derive(plan.seed, "trial", number)


def forget_data() -> None:
    """Forget loaded data and servers that failed: both may have changed since this process' last assessment."""
    _loaded.cache_clear()
    forget_outages()


def split_by_patient(data: ClinicalData, seed: int) -> Split:
    """Return the data set's own parts, or a split of its pool that is stratified by what is told and whole by patient.

    Raises:
        SpecError: a part would hold no row of some class.
    """
    if data.pool is None:
        return Split(train=data.fixed["train"], validation=data.fixed["validation"], test=data.fixed["test"])
    kinds = strata(data.output, data.pool.y, data.pool.patients)
    rest, test = _divide(data.pool, kinds, np.arange(len(data.pool)), data.test_share, seed)
    train, validation = _divide(data.pool, kinds, rest, data.validation_share, derive(seed, "validation"))
    parts = {"train": train, "validation": validation, "test": test}
    for name, rows in parts.items():
        named = data.classes if data.output == "classes" else ()
        absent = [c for i, c in enumerate(named) if not bool((kinds[rows] == i).any())]
        if absent:
            raise SpecError(
                f"data.{name} would hold no patient of class {', '.join(absent)}: every part needs every class; "
                "give more patients of that class, or a 'split' column"
            )
    return Split(**{name: data.pool.take(rows) for name, rows in parts.items()})


def drawn(test: Samples, data: ClinicalData, count: int, seed: int) -> Samples:
    """Return about `count` rows of the test part, each class in proportion and with one row at least; all if fewer."""
    if count >= len(test):
        return test
    kinds = strata(data.output, test.y, test.patients)
    order = torch.randperm(len(test), generator=generator(seed)).numpy()
    parts = [order[kinds[order] == kind] for kind in np.unique(kinds)]
    taken = [part[: max(1, round(len(part) * count / len(test)))] for part in parts]
    return test.take(np.sort(np.concatenate(taken)))


def _divide(
    pool: Samples, kinds: np.ndarray, rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rest, part): whole patients, `part` about `share` of the rows, kinds in proportion."""
    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.array(pool.patients)[rows]
    if few(patients):
        return drawn_patients(kinds, patients, rows, share, seed)
    folds = max(2, min(round(1 / share), len(set(patients.tolist()))))
    smallest = int(np.bincount(kinds[rows]).min())
    if smallest < 2 or len(set(patients.tolist())) < 2:
        raise SpecError(f"data has a class with {smallest} row(s): a split needs at least 2 patients of each class")
    splitter = StratifiedGroupKFold(n_splits=min(folds, smallest), shuffle=True, random_state=seed % 2**32)
    wanted = share * len(rows)
    parts = [part for _, part in splitter.split(rows, kinds[rows], patients)]
    chosen = np.sort(_enough(parts, wanted))
    mask = np.zeros(len(rows), dtype=bool)
    mask[chosen] = True
    return rows[~mask], rows[mask]


def _enough(parts: list[np.ndarray], wanted: float) -> np.ndarray:
    """Return the first folds that together come nearest to `wanted` rows."""
    sizes = np.cumsum([len(part) for part in parts])
    count = max(1, int(np.abs(sizes[:-1] - wanted).argmin()) + 1) if len(parts) > 1 else 1
    return np.concatenate(parts[:count])


def resolve_units(data: ClinicalData, train: Samples) -> dict[str, Tensor]:
    """Return the raw size of one of each unit; `sd` is the standard deviation over the training part.

    `values` is what an l0 budget counts: any value may be changed, by as much as the domain allows.
    """
    sizes = {
        name: train.x.std(dim=0) if size == "sd" else torch.tensor(float(size)) for name, size in data.units.items()
    }
    return {COUNTED: torch.tensor(1.0), **sizes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defended:
    """A model of the trial under its labels, or the reason why it could not be made."""

    model_label: str
    label: str
    model: Model | None
    reason: str = ""

    @property
    def digest(self) -> str:
        """What outcomes depend on: weights and defences."""
        kept = dict(self.model.provenance) if self.model is not None else {"reason": self.reason}
        return json.dumps({k: v for k, v in kept.items() if k not in ("costs", "training")}, sort_keys=True)


def defended(trial: Trial, spec: ModelSpec, plan: DefensePlan) -> Defended:
    """Return one defended model; where the defence cannot work, the reason in its place."""
    try:
        model = trial.defended(spec, plan.chain)
    except Incompatible as reason:
        return Defended(model_label=spec.label, label=plan.name, model=None, reason=str(reason))
    return Defended(model_label=spec.label, label=plan.name, model=model)
