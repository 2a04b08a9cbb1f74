"""The plan's precision: what attacks search in, never what they are judged in."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.assess.outputs import plan_text, write_labels

from titer.assess.plan import load_plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.engine import fast

THREAT = 'norm = "linf"\neps = [8]\nunit = "/255"'


def _plan(folder: Path, precision: str) -> Path:
    write_labels(folder)
    path = folder / f"{precision}.toml"
    path.write_text(f'precision = "{precision}"\n' + plan_text("labels", [THREAT], epochs="6"))
    return path


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each pass of a stand-in, whether it ran in lower precision."""
    passes: list[bool] = []
    forward = fast._Quick.forward

    def counted(self, x):
        passes.append(self.lower)
        return forward(self, x)

    monkeypatch.setattr(fast._Quick, "forward", counted)
    return passes


def test_the_search_runs_in_the_plans_precision_and_the_judge_in_float32(tmp_path: Path, lower: list[bool]) -> None:
    outcomes, cells = {}, {}
    for precision in ("float32", "bfloat16"):
        lower.clear()
        out = tmp_path / precision
        assess(load_plan(_plan(tmp_path, precision)), out, workers=1)
        assert len(lower) > 20
        assert any(lower) == all(lower) == (precision == "bfloat16")
        rows = pd.read_parquet(out / "outcomes.parquet")
        outcomes[precision] = rows[rows["attack"] == "pgd"]
        cells[precision] = set(outcomes[precision]["cell"])
        assert json.loads((out / "manifest.json").read_text())["precision"] == precision
    won = {precision: rows["won"].mean() for precision, rows in outcomes.items()}
    assert 0.05 < won["float32"] < 1
    assert abs(won["float32"] - won["bfloat16"]) < 0.06
    assert not cells["float32"] & cells["bfloat16"], "a change of precision runs the cells again"


def test_another_precision_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"precision = 'float16'.*float32.*bfloat16"):
        load_plan(_plan(tmp_path, "float16"))
