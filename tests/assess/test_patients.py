from __future__ import annotations

import numpy as np
import pytest

from titer.assess.patients import drawn_patients, few
from titer.core.errors import SpecError

PATIENTS = np.repeat([f"p{i:02d}" for i in range(12)], 50)
KINDS = np.concatenate([np.arange(50) < 1 + 3 * (i % 4) ** 2 for i in range(12)]).astype(np.int64)
ROWS = np.arange(600)


def test_few_patients_with_many_rows_each() -> None:
    assert few(PATIENTS)
    assert not few(np.array([f"p{i}" for i in range(12)]))
    assert not few(np.repeat([f"p{i}" for i in range(60)], 50))


def test_seeds_draw_other_patients_and_each_split_is_whole_and_near_its_share() -> None:
    parts = set()
    for seed in range(20):
        rest, part = drawn_patients(KINDS, PATIENTS, ROWS, 0.3, seed)
        assert not set(PATIENTS[rest]) & set(PATIENTS[part])
        assert sorted([*rest, *part]) == list(range(600))
        for kind in (0, 1):
            assert abs((KINDS[part] == kind).sum() / (kind == KINDS).sum() - 0.3) < 0.15
        parts.add(tuple(sorted(set(PATIENTS[part]))))
    assert len(parts) > 10


def test_the_same_seed_draws_the_same() -> None:
    assert np.array_equal(*(drawn_patients(KINDS, PATIENTS, ROWS, 0.3, 5)[1] for _ in range(2)))


def test_a_class_of_one_patient_cannot_be_split() -> None:
    with pytest.raises(SpecError, match="no split of them leaves rows of every class"):
        drawn_patients((PATIENTS == "p03").astype(np.int64), PATIENTS, ROWS, 0.3, 0)
