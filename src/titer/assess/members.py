"""Models that a transfer study sets side by side: other architectures, other sites, other data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from titer.assess.models import ModelSpec, pretrained
from titer.assess.study_plans import TransferPlan
from titer.assess.trial import Trial, split_by_patient
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.plugins import load_data
from titer.core.protocols import TrainingData
from titer.core.randomness import derive
from titer.core.record import ClinicalData, Samples, Split
from titer.training.loop import fit
from titer.training.objectives import standard

_UNKNOWN = "unknown"
_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of the study: an architecture of the plan, trained on all of its data, on one site, or on other data.

    `site` is a value of the plan's subgroup column, `other` the table of another data set; both empty for all.
    """

    spec: ModelSpec
    site: str = ""
    other: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """Name in tables: `small-cnn`, `small-cnn, site A`."""
        where = self.site or ("" if self.other is None else str(self.other.get("label", self.other.get("name", ""))))
        return f"{self.spec.label}, {where}" if where else self.spec.label


def members(trial: Trial, table: TransferPlan) -> Iterator[Member]:
    """Yield every model of the study."""
    for spec in trial.plan.models:
        yield Member(spec=spec)
        if pretrained(spec):
            continue
        yield from (Member(spec=spec, site=site) for site in _sites(trial, table))
        yield from (Member(spec=spec, other=other) for other in table.data)


def _sites(trial: Trial, table: TransferPlan) -> list[str]:
    if table.sites is None:
        return []
    return sorted(set(trial.split.train.groups[table.sites]) - {_UNKNOWN})


def trained(trial: Trial, table: TransferPlan, member: Member) -> Model:
    """Return the member's model, trained or from the cache.

    Raises:
        Incompatible: a site that lacks a class, or another data set whose rows or classes are not the plan's.
    """
    if not member.site and member.other is None:
        return trial.base(member.spec)
    split = _site(trial, str(table.sites), member.site) if member.site else _other(trial, member)
    _check_classes(split, trial.data, member)
    model = trial.untrained(member.spec)
    assert model.net is not None
    data = _training_data(trial, split)
    return fit(model, model.net, data, standard(data), seed=derive(trial.seed, "transfer", member.label))


def _training_data(trial: Trial, split: Split) -> TrainingData:
    whole = trial.training_data(trial.plan.training)
    return replace(whole, train=split.train.to(trial.device), validation=split.validation.to(trial.device))


def _site(trial: Trial, column: str, site: str) -> Split:
    """Return the site's own rows; the test part stays whole, so that every model answers the same rows."""
    return Split(
        train=_of_site(trial.split.train, column, site),
        validation=_of_site(trial.split.validation, column, site),
        test=trial.split.test,
    )


def _of_site(part: Samples, column: str, site: str) -> Samples:
    return part.take([row for row, value in enumerate(part.groups[column]) if value == site])


def _other(trial: Trial, member: Member) -> Split:
    assert member.other is not None
    data = load_data({key: value for key, value in member.other.items() if key != "label"}, "transfer.data")
    own = trial.data
    shapes = [tuple(next(iter(one.parts().values())).x.shape[1:]) for one in (own, data)]
    if shapes[0] != shapes[1] or data.classes != own.classes or data.output != own.output:
        raise Incompatible(
            f"{member.label}: rows {shapes[1]} of {', '.join(data.classes)} are not the plan's, {shapes[0]} of "
            f"{', '.join(own.classes)}"
        )
    split = split_by_patient(data, derive(trial.seed, "transfer", member.label, "split"))
    _check_leak(split, trial, member)
    return split


def _check_leak(split: Split, trial: Trial, member: Member) -> None:
    """Raise Incompatible where a test row of the plan stands in the other data set's training part."""
    learned = {row.numpy().tobytes() for row in torch.cat([split.train.x, split.validation.x])}
    test = trial.split.test
    shared = [name for name, row in zip(test.ids, test.x, strict=True) if row.numpy().tobytes() in learned]
    if shared:
        raise Incompatible(f"{member.label}: {len(shared)} test rows stand in its training data, {shared[0]} for one")


def _check_classes(split: Split, data: ClinicalData, member: Member) -> None:
    if data.output != _CLASSES:
        return
    for part, rows in (("training", split.train), ("validation", split.validation)):
        counts = torch.bincount(rows.y, minlength=len(data.classes)) if len(rows) else torch.zeros(len(data.classes))
        for name, count in zip(data.classes, counts.tolist(), strict=True):
            if count < _FEWEST:
                few = f"{member.label}: its {part} part has {int(count)} rows of {name!r}"
                raise Incompatible(f"{few}: {_FEWEST} are needed to learn it")


_CLASSES: Output = "classes"
