"""The detection study of a plan: what is kept, resumed and refused, and that the attacker who knows is the stronger."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.assess.plans import tiny

from titer.assess.detection_bench import Bench, Watcher
from titer.assess.plan import load_plan
from titer.assess.run import assess
from titer.assess.study_plans import DEFAULT_DETECTORS, TOGETHER, labels
from titer.assess.trial import defended, open_trial
from titer.cli.main import run
from titer.core.errors import Incompatible, SpecError
from titer.report.build import build

PLAN = """
name = "tiny"
trials = 1
seed = 7
attacks = ["fgsm", { name = "pgd", steps = 10 }, "deepfool"]

[data]
name = "cytology"

[training]
epochs = 15
batch_size = 32
learning_rate = 0.01

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [16] }

[[threats]]
norm = "linf"
eps = [0.25, 0.5]
unit = "sd"

[detection]
detectors = ["shift", "nearest-neighbour", "saliency-drift"]
attacks = ["pgd", "deepfool"]
stream = ["population-drift"]
rows = 60
"""


def changed(folder: Path, **settings: str) -> Any:
    """Return the plan with other lines in its detection table."""
    head, _, table = PLAN.partition("[detection]\n")
    lines = dict(line.split(" = ", 1) for line in table.splitlines()) | settings
    return tiny(folder, head + "[detection]\n" + "\n".join(f"{key} = {value}" for key, value in lines.items()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run with detectors, its report built."""
    base = tmp_path_factory.mktemp("run")
    out = assess(tiny(base, PLAN), base / "out", workers=1)
    build(out)
    return out


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "detection.parquet")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    plan = tiny(tmp_path_factory.mktemp("bench"), PLAN)
    trial = open_trial(plan, 0, cache=tmp_path_factory.mktemp("cache"))
    assert plan.detection is not None
    return Bench(trial, defended(trial, plan.models[0], plan.defenses[0]), plan.detection)


def test_every_row_has_a_score_of_every_detector(rows: pd.DataFrame) -> None:
    watched = rows[rows["part"] == "test"]
    names = ["shift", "nearest-neighbour", TOGETHER]
    assert sorted(set(watched["detector"])) == sorted(names)
    keys = ["detector", "attack", "threat", "adaptive", "sample_id"]
    assert not watched.duplicated(keys).any()
    clean, plain, knowing = 1, 2 * 2, 2  # attacks at every budget, and at the largest one
    assert len(watched) == 60 * len(names) * (clean + plain + knowing)
    assert (watched["raised"] == ~(watched["score"] <= watched["threshold"])).all()
    assert not (watched["won"] & ~watched["at_stake"]).any()


def test_thresholds_hold_their_rate_on_the_rows_that_set_them(rows: pd.DataFrame) -> None:
    calibration = rows[rows["part"] == "validation"]
    for _, some in calibration.groupby("detector"):
        assert some["raised"].sum() <= 0.05 * (len(some) + 1)


def test_who_knows_the_detectors_gets_through_at_least_as_often(rows: pd.DataFrame) -> None:
    attacked = rows[(rows["threat"] == "linf 0.5 sd") & (rows["part"] == "test")]
    through = (attacked["won"] & ~attacked["raised"]).groupby([attacked["detector"], attacked["adaptive"]]).mean()
    for name in ("shift", "nearest-neighbour", TOGETHER):
        assert through[name, True] >= through[name, False]
    assert through["nearest-neighbour", True] > through["nearest-neighbour", False] + 0.1


def test_finds_stay_inside_the_threat(bench: Bench) -> None:
    from titer.assess.detection import _cells

    for cell in _cells(bench.trial, bench.source, bench.table):
        assert all(bool(one.threat.contains(one.x, bench.rows.x).all()) for one in bench.plain(cell))
        known = bench.evading(cell, bench.watcher("shift"))
        assert bool(known.threat.contains(known.x, bench.rows.x).all())
        assert bool((known.won <= known.at_stake).all())


@pytest.mark.parametrize("attack", [{"name": "worst-case", "steps": 5, "queries": 20}, "square", "hopskipjump"])
def test_an_ensemble_and_attacks_without_gradients_evade_too(bench: Bench, attack: Any) -> None:
    from dataclasses import replace

    from titer.assess.detection import _cell
    from titer.assess.plan import AttackPlan

    spec = {"name": attack, "queries": 60} if isinstance(attack, str) else attack
    access = {"square": "scores", "hopskipjump": "decision"}.get(spec["name"], "gradient")
    threats = tuple(replace(one, access=access) for one in bench.trial.threats(bench.trial.plan.threats[0]))
    plan = AttackPlan(label="other", spec=spec, minimal=attack == "hopskipjump", nested=spec["name"] == "worst-case")
    cell = _cell(bench.trial, plan, threats, bench.source)
    watcher = bench.watcher(TOGETHER)
    before, found = bench.plain(cell)[-1], bench.evading(cell, watcher)
    through = [int((one.won & (watcher.score(one.x) <= watcher.threshold)).sum()) for one in (before, found)]
    assert through[1] >= through[0]
    assert bool(threats[-1].contains(found.x, bench.rows.x).all())


def test_any_alarm_counts_where_the_plan_says_any(tmp_path: Path, bench: Bench) -> None:
    plan = changed(tmp_path, combination='"any"')
    trial = open_trial(plan, 0, cache=bench.trial.cache)
    both = Bench(trial, defended(trial, plan.models[0], plan.defenses[0]), plan.detection).watcher(TOGETHER)
    x = bench.rows.x + 0.3 * bench.rows.x.std(0)
    each = np.stack([watch.raised(x).numpy() for watch in both.watches])
    assert len(both.watches) == 2
    assert ((both.score(x) > both.threshold).numpy() == each.any(0)).all()
    assert each.any()


def test_only_those_named_are_asked_together(tmp_path: Path, bench: Bench) -> None:
    plan = changed(
        tmp_path,
        together='["shift", "nearest-neighbour"]',
        detectors='["shift", "low-confidence", "nearest-neighbour"]',
    )
    trial = open_trial(plan, 0, cache=bench.trial.cache)
    named = Bench(trial, defended(trial, plan.models[0], plan.defenses[0]), plan.detection)
    assert named.together == ["shift", "nearest-neighbour"]
    assert set(named.watchers) == {"shift", "nearest-neighbour", "low-confidence", TOGETHER}


def test_a_second_run_does_nothing_again(folder: Path) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (folder / "detection").rglob("*.json")}
    table = (folder / "detection.parquet").read_bytes()
    assess(load_plan(folder / "plan.toml"), folder, workers=1)
    assert {path: path.stat().st_mtime_ns for path in (folder / "detection").rglob("*.json")} == kept
    assert (folder / "detection.parquet").read_bytes() == table


def test_a_detector_that_cannot_work_is_left_out_with_its_reason(folder: Path) -> None:
    notes = json.loads((folder / "detection.json").read_text())["parts"]
    said = next(part for part in notes if part["title"] == "detectors, no attack")["facts"]["detectors"]
    refused = {one["label"]: one.get("refused", "") for one in said}
    assert list(refused) == ["shift", "nearest-neighbour", "saliency-drift", TOGETHER]
    assert "signals, images" in refused["saliency-drift"]
    assert next(one for one in said if one["label"] == TOGETHER)["of"] == ["shift", "nearest-neighbour"]
    skipped = [part for part in notes if "skipped" in part]
    assert {part["spec"]["label"] for part in skipped} == {"saliency-drift"}
    assert all("\n" not in part["skipped"] for part in skipped)


def test_the_page_and_its_data_carry_the_numbers(folder: Path, rows: pd.DataFrame) -> None:
    data = json.loads((folder / "report.json").read_text())
    found = {(one["detector"], one["attack"], one["threat"]): one for one in data["detected"]["caught"]}
    mine = rows[(rows["detector"] == "shift") & (rows["attack"] == "pgd") & (rows["threat"] == "linf 0.5 sd")]
    stake = mine[mine["at_stake"] & mine["adaptive"]]
    alone = (stake["won"] & ~stake["raised"]).mean()
    one = found["shift", "pgd", "linf 0.5 sd"]
    assert one["adaptive"]["mean"] >= alone
    assert one["adaptive"]["low"] <= one["adaptive"]["mean"] <= one["adaptive"]["high"]
    assert found["shift", "pgd", "linf 0.25 sd"]["adaptive"]["mean"] is None
    page = (folder / "report.html").read_text()
    assert 'id="detection"' in page
    assert "Saliency drift is left out" in page
    assert any("One who does gets" in caution for caution in data["cautions"])
    assert len(data["detected"]["streams"]) == 3


def test_times_never_stand_in_the_table(rows: pd.DataFrame) -> None:
    assert not [name for name in rows.columns if "second" in name or "ms" in name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detectors": '["population-drift"]'}, "detection.detectors[0] = 'population-drift' watches streams"),
        ({"stream": '["shift"]'}, "detection.stream[0] = 'shift' scores single inputs"),
        ({"detectors": '["shfit"]'}, "did you mean 'shift'"),
        ({"attacks": '["pdg"]'}, "detection.attacks = 'pdg'"),
        ({"false_positive_rate": "1.5"}, "detection.false_positive_rate = 1.5"),
        ({"together": '["shfit"]'}, "detection.together = 'shfit'"),
        ({"combination": '"most"'}, "detection.combination = 'most'"),
        ({"defenses": '["jpg"]'}, "detection.defenses = 'jpg'"),
        ({"detectors": '["shift", "shift"]'}, "stands twice"),
        ({"detectors": '[{ name = "shift", label = "all together" }]'}, "tables use that name themselves"),
    ],
)
def test_a_wrong_plan_is_one_line_and_exit_2(
    tmp_path: Path,
    settings: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SpecError) as error:
        changed(tmp_path, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(sys, "argv", ["titer", "assess", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_too_few_validation_rows_for_the_rate_are_a_skipped_row(tmp_path: Path, bench: Bench) -> None:
    plan = changed(tmp_path, false_positive_rate="0.001")
    trial = open_trial(plan, 0, cache=bench.trial.cache)
    strict = Bench(trial, defended(trial, plan.models[0], plan.defenses[0]), plan.detection)
    with pytest.raises(Incompatible, match=r"clean rows are few .* 999 suffice"):
        strict.able  # noqa: B018 - the look is the test


def test_a_detector_fitted_on_another_shape_says_so(bench: Bench) -> None:
    watcher = bench.watcher("shift")
    with pytest.raises(Incompatible, match=r"shift was fitted on rows of shape \(30,\), not \(29,\)"):
        watcher.score(bench.rows.x[:, :-1])


def test_detectors_of_one_name_are_told_apart_by_their_settings() -> None:
    specs = ["shift", {"name": "nearest-neighbour", "neighbours": 5}, {"name": "nearest-neighbour", "neighbours": 9}]
    assert labels(specs) == (
        "shift", "nearest-neighbour (neighbours = 5)", "nearest-neighbour (neighbours = 9)",
    )  # fmt: skip


def test_an_empty_table_takes_the_default_detectors(tmp_path: Path) -> None:
    plan = tiny(tmp_path, PLAN.partition("[detection]")[0] + "[detection]\n")
    assert plan.detection is not None
    assert plan.detection.detectors == DEFAULT_DETECTORS


def test_a_single_detector_has_nothing_to_be_asked_together_with(tmp_path: Path, bench: Bench) -> None:
    plan = changed(tmp_path, detectors='["shift"]')
    trial = open_trial(plan, 0, cache=bench.trial.cache)
    one = Bench(trial, defended(trial, plan.models[0], plan.defenses[0]), plan.detection)
    assert list(one.watchers) == ["shift"]
    assert isinstance(one.watchers["shift"], Watcher)
