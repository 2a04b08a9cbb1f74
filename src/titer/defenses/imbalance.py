"""Class-imbalance-aware training: the rare class weighs more, is drawn more often, or is filled up with new rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible, SpecError
from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import Count, Positive, defense, make_defense
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import standard
from titer.training.worst_case import trainable

_FEWEST_PATIENTS = 2
_TABLE = 2


@defense(
    "imbalance",
    paper="Elkan 2001, IJCAI, section 2; Chawla, Bowyer, Hall, Kegelmeyer 2002, arXiv:1106.1813, section 4.2",
)
def imbalance(
    *,
    method: Literal["weights", "oversample", "smote"] = "weights",
    costs: tuple[Positive, ...] | None = None,
    neighbors: Count = 5,
    defense: str | dict[str, Any] | None = None,
) -> Defense:
    """Class-imbalance-aware training.

    The classes are balanced in the training part alone; what is trained on it is any defence that trains, by its spec.

    Args:
        method: `weights` weighs the loss, `oversample` repeats rows of rare classes, `smote` adds rows between
            neighbours of a rare class (tables only; needs the extra `tables`).
        costs: what a mistake costs in each class, for `weights`; without it, inverse to the class's frequency.
        neighbors: nearest rows of the same class that `smote` draws between; fewer where the class has fewer.
        defense: what trains on the balanced part, `adversarial-training` for one; none is standard training.
    """
    if costs is not None and method != "weights":
        raise SpecError(
            f"defenses.imbalance.costs = {list(costs)} is not allowed with method = {method!r}: 'weights' takes them"
        )
    inner = None if defense is None else make_defense(defense, "defenses.imbalance.defense")
    smote = need("imblearn.over_sampling", "tables").SMOTE if method == "smote" else None

    def resampled(train: TrainingData, rng: Generator) -> Samples:
        return _repeated(train, rng) if smote is None else _filled(smote, train, neighbors, rng)

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        _check(train, method, costs)
        if method == "weights":
            balanced = replace(train, costs=costs, recipe=replace(train.recipe, class_weights="balanced"))
        else:
            recipe = replace(train.recipe, class_weights="none")
            balanced = replace(train, train=resampled(train, rng), recipe=recipe)
        if inner is not None:
            return inner(model, balanced, rng=rng)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        return fit(anew(model), fresh(net, seed), balanced, standard(balanced), seed=seed)

    return run


def _check(train: TrainingData, method: str, costs: tuple[float, ...] | None) -> None:
    """Raise Incompatible for data that have no classes to balance, or too few patients of one."""
    if train.output == "value" or (train.output != "classes" and method != "weights"):
        raise Incompatible(f"imbalance with method = {method!r} balances classes, and this model's output is none")
    if costs is not None and len(costs) != train.classes:
        raise Incompatible(f"imbalance.costs = {list(costs)} is not allowed: it takes {train.classes}, one a class")
    if method == "smote" and train.train.x.dim() != _TABLE:
        raise Incompatible(
            f"imbalance with method = 'smote' fills up tables, not rows of shape {tuple(train.train.x.shape[1:])}: "
            "the mean of two images is no image; 'oversample' and 'weights' take them"
        )
    if train.output == "classes":
        _enough_patients(train)


def _enough_patients(train: TrainingData) -> None:
    pairs = zip(train.train.y.tolist(), train.train.patients, strict=True)
    patients = Counter(label for label, _ in set(pairs))
    for label in range(train.classes):
        if patients[label] < _FEWEST_PATIENTS:
            raise Incompatible(
                f"imbalance needs {_FEWEST_PATIENTS} patients of each class in the training part, and class {label} "
                f"has {patients[label]}: weighing or repeating one patient teaches that patient, not the class"
            )


def _repeated(train: TrainingData, rng: Generator) -> Samples:
    """Return the rows, and draws with replacement of each class until it is as large as the largest."""
    y = train.train.y.cpu()
    counts = torch.bincount(y, minlength=train.classes)
    rows = [torch.arange(len(y))]
    for label in range(train.classes):
        own = (y == label).nonzero().flatten()
        missing = int(counts.max() - counts[label])
        rows.append(own[torch.randint(len(own), (missing,), generator=rng)])
    return train.train.take(torch.cat(rows).tolist())


def _filled(smote: Any, train: TrainingData, neighbors: int, rng: Generator) -> Samples:
    """Return the rows, and new ones of rare classes, each on the line between a row and one of its nearest.

    Distances are in standard deviations of each feature, so that no unit decides who is near. New rows are brought
    inside the domain's rules, and stand for patients of their own.
    """
    x, y = train.train.x.cpu(), train.train.y.cpu()
    mean, sd = x.mean(0), x.std(0).clamp_min(1e-12)
    nearest = min(neighbors, int(torch.bincount(y, minlength=train.classes).min()) - 1)
    sampler = smote(k_neighbors=nearest, random_state=int(torch.randint(2**31, (1,), generator=rng)))
    filled, labels = sampler.fit_resample(((x - mean) / sd).numpy(), y.numpy())
    made = torch.from_numpy(np.asarray(filled[len(x) :])).to(x.dtype) * sd + mean
    for rule in train.domain:
        made = rule.project(made, made)
    return _appended(train.train, made, torch.from_numpy(np.asarray(labels[len(x) :])).to(y.dtype))


def _appended(part: Samples, x: Tensor, y: Tensor) -> Samples:
    names = tuple(f"smote-{i}" for i in range(len(x)))
    return Samples(
        x=torch.cat([part.x, x.to(part.x.device)]),
        y=torch.cat([part.y, y.to(part.y.device)]),
        ids=part.ids + names,
        patients=part.patients + names,
        groups={column: values + ("unknown",) * len(x) for column, values in part.groups.items()},
    )
