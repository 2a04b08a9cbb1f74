"""From matrices to clinical data: labels, parts that no patient and no profile crosses, and what drawings need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from titer.core.errors import SpecError
from titer.core.record import Samples
from titer.core.threat import Region
from titer.modalities._checks import (
    check_patient_values,
    check_patients,
    class_names,
    class_numbers,
    listed,
    part_names,
    refuse,
    samples,
)
from titer.modalities._matrix import Matrix, aligned
from titer.threats.rules import Box

_LARGEST = 300.0
"""-log10 of a p value that is as good as 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a matrix is read as a study: the columns of label and patient, and the classes where they are named."""

    label: str
    patient: str | None
    classes: tuple[str, ...] | None
    validation_share: float
    renamed: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The samples of a study, as the pool or in fixed parts, with their classes and the names of the features."""

    pool: Samples | None
    fixed: Mapping[str, Samples]
    classes: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def shown(self) -> Samples:
        """The samples that drawings compare with: the training part, or all where each trial splits anew."""
        return self.fixed["train"] if self.pool is None else self.pool

    def every(self) -> torch.Tensor:
        """Return all values, float32[N, F]."""
        parts = self.fixed.values() if self.pool is None else [self.pool]
        return torch.cat([part.x for part in parts])


def cohort(matrix: Matrix, test: Matrix | None, reading: Reading) -> Cohort:
    """Return the study of one matrix, or of a training and a test matrix.

    Raises:
        SpecError: labels, patients or parts are wrong, genes differ between the two, or a profile or a patient stands
            on both sides.
    """
    if test is not None:
        if "split" in matrix.columns:
            raise SpecError("data.test_file is not allowed where data.file has a split column: allowed is one of them")
        test = aligned(test, matrix.features, "data.test_file", matrix.place)
    labels = _labels(matrix, reading) + ([] if test is None else _labels(test, reading))
    classes = reading.classes or class_names(labels)
    first = _samples(matrix, classes, reading)
    if test is not None:
        fixed = {"train": first, "test": _samples(test, classes, reading)}
        return _divided(fixed, classes, matrix.features, reading)
    if "split" in matrix.columns:
        return _divided(_by_column(first, matrix), classes, matrix.features, reading)
    _refuse_copies({"data": first}, "a split could put one of them into training and the other into test")
    return Cohort(pool=first, fixed={}, classes=classes, features=matrix.features)


def _labels(matrix: Matrix, reading: Reading) -> list[str]:
    renamed = reading.renamed or {}
    return [renamed.get(text, text) for text in matrix.columns[reading.label]]


def _samples(matrix: Matrix, classes: tuple[str, ...], reading: Reading) -> Samples:
    columns = {name: values for name, values in matrix.columns.items() if name in ("sex", "age", "site")}
    if reading.patient is None:
        check_patients([name for name in matrix.columns if name not in (reading.label, "patient_id")])
    patients = matrix.ids if reading.patient is None else matrix.columns[reading.patient]
    numbers, problems = class_numbers(_labels(matrix, reading), classes, matrix.ids)
    refuse([*problems, *check_patient_values(patients, matrix.ids)])
    return samples(matrix.x, numbers, ids=matrix.ids, patients=patients, columns=columns)


def _by_column(rows: Samples, matrix: Matrix) -> dict[str, Samples]:
    """Return the parts that the `split` column names; a validation part may be left to be drawn from training."""
    values = [value.strip().lower() for value in matrix.columns["split"]]
    named = np.array(values)
    if set(values) == {"train", "test"}:
        return {part: rows.take(np.flatnonzero(named == part)) for part in ("train", "test")}
    parts, problems = part_names(values, matrix.ids)
    refuse(problems)
    return {part: rows.take(np.flatnonzero(np.array(parts) == part)) for part in ("train", "validation", "test")}


def _divided(
    fixed: dict[str, Samples], classes: tuple[str, ...], features: tuple[str, ...], reading: Reading
) -> Cohort:
    _refuse_copies(fixed, "the same patient would be trained on and tested")
    if "validation" not in fixed:
        train, validation = _carved(fixed["train"], classes, reading.validation_share)
        fixed = {"train": train, "validation": validation, "test": fixed["test"]}
    return Cohort(pool=None, fixed=fixed, classes=classes, features=features)


def _carved(train: Samples, classes: tuple[str, ...], share: float) -> tuple[Samples, Samples]:
    """Return (rest, validation): whole patients, classes in proportion, the same ones in every trial."""
    from sklearn.model_selection import StratifiedGroupKFold

    y = train.y.numpy()
    lone = [
        name for i, name in enumerate(classes) if len({p for p, k in zip(train.patients, y, strict=True) if k == i}) < 2
    ]
    if lone:
        raise SpecError(
            f"data.train holds fewer than 2 patients of class {listed(lone)}: a validation part needs one, training "
            "another; name a validation part in the split column"
        )
    smallest = int(np.bincount(y, minlength=len(classes)).min())
    folds = max(2, min(round(1 / share), smallest))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=0)
    rest, part = next(splitter.split(train.x, y, np.array(train.patients)))
    return train.take(rest), train.take(part)


def _refuse_copies(parts: Mapping[str, Samples], why: str) -> None:
    """Refuse one profile under two patients, or in two parts: it is one patient, on both sides of a split."""
    seen: dict[bytes, tuple[str, str, str]] = {}
    copies = []
    for name, part in parts.items():
        for row, one, patient in zip(part.x.numpy(), part.ids, part.patients, strict=True):
            before = seen.setdefault(row.tobytes(), (name, one, patient))
            if (before[0], before[2]) != (name, patient):
                copies.append(f"{before[1]} and {one}" + (f" ({before[0]}, {name})" if before[0] != name else ""))
    if copies:
        raise SpecError(f"data has the same values in {listed(copies)}: {why}")


def seen_range(x: torch.Tensor, what: str) -> Region:
    """Return the rule that each feature stays in the range that it has in the cohort, x float32[N, F]."""
    return Box(low=x.amin(0), high=x.amax(0), text=f"each {what} stays in the range that it has in the cohort")


def drawing(rows: Samples, classes: Sequence[str], what: str, value: str) -> dict[str, Any]:
    """Return what a drawing of a profile needs: class means, and how far each feature tells the classes apart.

    The latter is -log10 of the p value of a one-way ANOVA between the classes, 300 at most.
    """
    x, y = rows.x.double().numpy(), rows.y.numpy()
    groups = [x[y == k] for k in range(len(classes))]
    return {
        "what": what,
        "value": value,
        "classes": list(classes),
        "class_means": [[round(float(m), 4) for m in group.mean(0)] for group in groups],
        "minus_log10_p": [round(float(p), 3) for p in _anova(groups)],
    }


def _anova(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return -log10 p of each feature, float64[F]; 0 for one that never varies."""
    from scipy.stats import f

    whole = np.concatenate(groups)
    between = sum(len(g) * (g.mean(0) - whole.mean(0)) ** 2 for g in groups)
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups)
    free = (len(groups) - 1, max(len(whole) - len(groups), 1))
    varies = np.asarray(within) > 0
    sharp = np.where(np.asarray(between) > 0, np.inf, 0.0)  # the same in each class, and not the same in all
    ratio = np.where(varies, (between / free[0]) / np.where(varies, within / free[1], 1.0), sharp)
    with np.errstate(divide="ignore"):  # a p value below the smallest float
        found: np.ndarray = np.clip(-f.logsf(ratio, *free) / np.log(10.0), 0.0, _LARGEST)
    return found
