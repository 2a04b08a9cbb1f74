"""Plans that attack a part of the test rows only."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.assess.plans import TINY, tiny

from titer.assess.cells import Cell
from titer.assess.trial import Defended, open_trial


def test_each_trial_draws_its_own_test_rows_each_class_in_proportion(tmp_path: Path) -> None:
    plan = tiny(tmp_path, "test_rows = 40\n" + TINY)
    whole, few = (
        [open_trial(one, number, cache=tmp_path) for number in (0, 1)] for one in (tiny(tmp_path, TINY), plan)
    )
    for all_rows, some in zip(whole, few, strict=True):
        assert len(some.split.test) == pytest.approx(40, abs=1)
        assert set(some.split.test.ids) < set(all_rows.split.test.ids)
        assert some.split.train.ids == all_rows.split.train.ids
        shares = [float(one.split.test.y.double().mean()) for one in (all_rows, some)]
        assert shares[1] == pytest.approx(shares[0], abs=0.03)
    assert open_trial(plan, 0, cache=tmp_path).split.test.ids == few[0].split.test.ids
    many = tiny(tmp_path, "test_rows = 10000\n" + TINY)
    assert open_trial(many, 0, cache=tmp_path).split.test.ids == whole[0].split.test.ids


def test_other_test_rows_are_other_cells(tmp_path: Path) -> None:
    trials = [open_trial(tiny(tmp_path, head + TINY), 0, cache=tmp_path) for head in ("", "test_rows = 40\n")]
    sources = [Defended(model_label="mlp", label="none", model=None, reason="none here") for _ in trials]
    ids = [
        Cell(trial=trial, attack=None, threats=(), source=one, targets=(one,)).id
        for trial, one in zip(trials, sources, strict=True)
    ]
    assert ids[0] != ids[1]
