"""Splits by patient keep findings, values and lesions in proportion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from titer.assess.strata import strata
from titer.assess.trial import split_by_patient
from titer.core.outputs import Output
from titer.core.record import ClinicalData, Samples

COUNT = 600
RNG = torch.Generator().manual_seed(0)
CHANCES = torch.tensor([0.5, 0.3, 0.05])
LESION = (torch.rand(COUNT, generator=RNG) < 0.2).long()
Y: dict[Output, torch.Tensor] = {
    "labels": (torch.rand((COUNT, 3), generator=RNG) < CHANCES).long(),
    "value": torch.randn(COUNT, generator=RNG).exp(),
    "mask": LESION.view(-1, 1, 1) * (torch.rand((COUNT, 4, 4), generator=RNG) < 0.5).long(),
}
NAMES = {"labels": ("a", "b", "c"), "value": ("age",), "mask": ("background", "lesion")}


def _data(output: Output) -> ClinicalData:
    ids = tuple(map(str, range(COUNT)))
    patients = tuple(f"P{i // 2}" for i in range(COUNT))
    return ClinicalData(
        name="fake", title="", kind="table", source="", licence="", classes=NAMES[output], positive=None,
        pool=Samples(x=torch.zeros(COUNT, 2), y=Y[output], ids=ids, patients=patients), fixed={}, domain=(), units={},
        output=output,
    )  # fmt: skip


def _told(output: Output, y: torch.Tensor) -> torch.Tensor:
    """Return what should be alike in all parts: the share of each finding, mean log value, share of lesions."""
    if output == "labels":
        return y.float().mean(0)
    return y.log().mean().view(1) if output == "value" else y.flatten(1).any(1).float().mean().view(1)


@pytest.mark.parametrize("output", list(Y))
def test_parts_share_no_patient_and_tell_alike(output: Output) -> None:
    data = _data(output)
    split = split_by_patient(data, 5)
    parts = (split.train, split.validation, split.test)
    people = [set(part.patients) for part in parts]
    assert sum(map(len, people)) == len(set.union(*people)) == COUNT // 2
    assert 0.25 < len(split.test) / COUNT < 0.4
    whole = _told(output, Y[output])
    assert all(float((_told(output, part.y) - whole).abs().max()) < 0.1 for part in parts)


def test_a_rare_finding_is_in_every_part() -> None:
    split = split_by_patient(_data("labels"), 1)
    assert all(int(part.y[:, 2].sum()) >= 2 for part in (split.train, split.validation, split.test))


def test_strata_of_a_few_patients_are_joined() -> None:
    y = torch.zeros((40, 2), dtype=torch.int64)
    y[:3, 1] = 1
    assert len(np.unique(strata("labels", y, [str(i) for i in range(40)]))) == 1
    y[:20, 0] = 1
    assert len(np.unique(strata("labels", y, [str(i) for i in range(40)]))) == 2


def test_rows_are_of_their_rarest_finding() -> None:
    y = torch.zeros((60, 2), dtype=torch.int64)
    y[:40, 0], y[30:50, 1] = 1, 1
    found = strata("labels", y, [str(i) for i in range(60)])
    kinds = [set(found[rows].tolist()) for rows in (slice(0, 30), slice(30, 50), slice(50, 60))]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) == 3


def test_a_small_study_can_be_split() -> None:
    data = _data("value")
    assert data.pool is not None
    small = replace(data, pool=data.pool.take(range(12)))
    split = split_by_patient(small, 0)
    assert min(len(part) for part in (split.train, split.validation, split.test)) > 0
