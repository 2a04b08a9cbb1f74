"""Poisoning of a plan: models trained on poisoned training parts, and searches for the poisoned rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from titer.assess.models import ModelSpec, build, pretrained
from titer.assess.poisoning_measures import Judged, aim_of, before, counted, detected, judged, measured, removed
from titer.assess.study_parts import Found, Part, Study, studied_rows
from titer.assess.study_plans import PoisoningPlan, labels, posed, unlabelled
from titer.assess.trial import Defended, Trial
from titer.core.errors import ContractError, Incompatible
from titer.core.model import Model
from titer.core.plugins import make_cleaner, make_poison, plugin
from titer.core.protocols import Poisoned, TrainingData
from titer.core.randomness import derive, generator
from titer.core.record import Samples, SignedManifest
from titer.core.registry import Plugin, Spec, parse
from titer.training.loop import fit
from titer.training.manifest import new_key, sign
from titer.training.objectives import standard

VERSION = 1
NOT_CLEANED = "none"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class _Named:
    """A poison or a cleaner of the plan: its label, the plugin, and its settings filled in."""

    label: str
    plugin: Plugin
    spec: dict[str, Any]


def _named(shelf: str, specs: tuple[Spec, ...]) -> Iterator[_Named]:
    for label, spec in zip(labels(specs), specs, strict=True):
        found = plugin(shelf, spec)
        given = parse(unlabelled(spec), shelf)[1]
        yield _Named(label, found, {"name": found.name, **found.check(given, label)})


def _poisons(trial: Trial, table: PoisoningPlan, share: float) -> Iterator[_Named]:
    specs = [posed(unlabelled(spec), share, trial.data.classes, "poisoning.poisons") for spec in table.poisons]
    for label, one in zip(labels(table.poisons), _named("poisons", tuple(specs)), strict=True):
        yield replace(one, label=label)


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    """Yield one part for each poison and share: its trainings are kept, so that little is lost with it."""
    table = trial.plan.poisoning
    assert table is not None
    cleaners = tuple(_named("cleaners", table.cleaners))
    for share in table.shares:
        for poison in _poisons(trial, table, share):
            yield Part(
                title=f"{poison.label}, {100 * share:g} % poisoned",
                spec={
                    "version": VERSION,
                    "poison": poison.label,
                    "settings": poison.spec,
                    "share": share,
                    "cleaners": {one.label: one.spec for one in cleaners},
                    "remove": table.remove,
                    "retrain": table.retrain,
                    "rows": table.rows,
                    "rules": [rule.describe() for rule in trial.data.domain],
                },
                run=partial(_poisoned, trial, source, table, poison, share, cleaners),
            )


STUDY = Study(name="poisoning", table=lambda plan: plan.poisoning, parts=_parts)


def _poisoned(
    trial: Trial,
    source: Defended,
    table: PoisoningPlan,
    poison: _Named,
    share: float,
    cleaners: tuple[_Named, ...],
) -> Found:
    """Poison the training part, train on it, judge, and do the same after each cleaning.

    Raises:
        Incompatible: nothing of the model is trained here, or this data cannot be poisoned so.
        ContractError: the poison returned another form than poisoned parts have.
    """
    assert source.model is not None
    spec = next(one for one in trial.plan.models if one.label == source.model_label)
    if pretrained(spec):
        raise Incompatible(f"{spec.label} comes with its weights: nothing is trained here that could be poisoned")
    clean = trial.training_data(trial.plan.training)
    seed = derive(trial.seed, "poison", source.model_label, poison.label)
    found = make_poison(poison.spec)(attackers(trial, spec), clean, rng=generator(seed))
    _check(found, clean, poison.label)
    on = judged(found, studied_rows(trial, table.rows), trial.data.domain, seed)
    fixed = {"poison": poison.label, "share": share, **counted(on), **before(measured(source.model, on))}
    fixed |= {"rows": len(found.samples), "changed": int(found.changed.sum())}
    model = _trained(trial, source, spec, found.samples)
    rows = [{"cleaner": NOT_CLEANED, **measured(model, on)}]
    rows += [_cleaned(trial, source, spec, model, found, one, table, on) for one in cleaners]
    return Found(
        frame=_frame([fixed | row for row in rows]),
        facts=_facts(trial, poison, share, found, cleaners, table),
        arrays=_examples(trial, source, clean.train, found),
    )


def attackers(trial: Trial, spec: ModelSpec) -> Model:
    """Return what the attacker knows: the plan's network, trained by themselves on the clean part from other weights.

    Architecture, data and recipe are known, the victim's weights are not (grey box, Geiping et al. 2021, section 3.1).
    """
    seed = derive(trial.seed, "attacker", spec.label)
    model = build(
        spec, trial.data, trial.split.train, folder=trial.plan.folder, seed=seed, device=trial.device,
        where=f"models.{spec.label}",
    )  # fmt: skip
    data = trial.training_data(trial.plan.training)
    assert model.net is not None
    return fit(model, model.net, data, standard(data), seed=derive(seed, "training"))


def _trained(trial: Trial, source: Defended, spec: ModelSpec, samples: Samples) -> Model:
    """Return the defended model trained on other samples: same seeds, same recipe, same defences."""
    chain = next(one.chain for one in trial.plan.defenses if one.name == source.label)
    other = replace(trial, split=replace(trial.split, train=samples.to("cpu")))
    return other.defended(spec, chain)


def _check(found: Poisoned, clean: TrainingData, label: str) -> None:
    """Raise ContractError unless every row has a mark, and the aim can be judged."""
    if found.changed.shape != (len(found.samples),) or found.samples.x.shape[1:] != clean.train.x.shape[1:]:
        raise ContractError(
            f"the poison {label!r} returned {tuple(found.changed.shape)} marks for {len(found.samples)} rows of "
            f"{tuple(found.samples.x.shape[1:])}: allowed is one a row, shaped as the training part's"
        )
    if found.target is None and (found.trigger is not None or found.aimed is not None):
        raise ContractError(f"the poison {label!r} returned a trigger or aimed inputs, and no target")


def _cleaned(
    trial: Trial,
    source: Defended,
    spec: ModelSpec,
    model: Model,
    found: Poisoned,
    cleaner: _Named,
    table: PoisoningPlan,
    on: Judged,
) -> dict[str, Any]:
    """Return what one cleaner finds, and what the model is worth that is trained on what it leaves."""
    data = replace(
        trial.training_data(trial.plan.training),
        train=found.samples.to(trial.device),
        manifest=_manifest(trial.split.train),
    )
    rng = generator(on.seed, "clean", source.label, cleaner.label)
    try:
        scores = make_cleaner(cleaner.spec)(model, data, rng=rng).double().cpu().numpy()
    except Incompatible as reason:
        return {"cleaner": cleaner.label, "refused": str(reason)}
    if scores.shape != (len(found.samples),) or np.isnan(scores).any():
        raise ContractError(f"the cleaner {cleaner.label!r} returned no score for each of {len(found.samples)} rows")
    changed = found.changed.cpu().numpy()
    out = removed(scores, table.remove)
    kept = found.samples.take(np.flatnonzero(~out))
    wanted = table.retrain is None or cleaner.label in table.retrain
    again = measured(_trained(trial, source, spec, kept), on) if wanted else {}
    told = {"cleaner": cleaner.label, "removed": int(out.sum()), "removed_changed": int((out & changed).sum())}
    return told | detected(scores, changed) | again


def _manifest(collected: Samples) -> SignedManifest | None:
    """Return the manifest that was signed before the attack; None where the extra that signs is not installed."""
    if find_spec("cryptography") is None:
        return None
    return sign(collected, new_key()[0])


_MEASURES = (
    "clean_accuracy", "class_accuracy", "success", "clean_accuracy_before", "class_accuracy_before", "success_before",
    "detection_rate", "auroc", "removed", "removed_changed",
)  # fmt: skip


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row a cleaner, the uncleaned training first; what is not measured is NaN."""
    frame = pd.DataFrame(rows)
    for name in _MEASURES:
        frame[name] = frame[name].astype(float) if name in frame else float("nan")
    frame["refused"] = frame["refused"].fillna("") if "refused" in frame else ""
    return frame


def _facts(
    trial: Trial,
    poison: _Named,
    share: float,
    found: Poisoned,
    cleaners: tuple[_Named, ...],
    table: PoisoningPlan,
) -> dict[str, Any]:
    return {
        "poison": poison.label,
        "title": poison.plugin.title,
        "paper": poison.plugin.paper,
        "threats": list(poison.plugin.threat_ids),
        "settings": poison.spec,
        "share": share,
        "aim": aim_of(found),
        "target": None if found.target is None else trial.data.classes[found.target],
        "source": None if found.source is None else trial.data.classes[found.source],
        "aimed": 0 if found.aimed is None else len(found.aimed),
        "cleaners": {one.label: {"title": one.plugin.title, "paper": one.plugin.paper} for one in cleaners},
        "remove": table.remove,
    }


def _examples(trial: Trial, source: Defended, clean: Samples, found: Poisoned) -> dict[str, np.ndarray] | None:
    """Return a few changed rows before and after, of the first trial's undefended model."""
    same = len(found.samples) == len(clean)
    rows = found.changed.nonzero().flatten()[:_SHOWN].tolist()
    if trial.number or source.label != "none" or not same or not rows:
        return None
    pairs = {"before": clean.take(rows), "after": found.samples.take(rows)}
    values = {name: part.x.cpu().numpy() for name, part in pairs.items()}
    names = np.array(trial.data.classes)
    return values | {f"label_{name}": names[part.y.cpu().numpy()] for name, part in pairs.items()}
