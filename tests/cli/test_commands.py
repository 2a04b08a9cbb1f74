"""Each command as a user types it, on real data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from tests.assess.plans import TINY

from titer.assess.plan import load_plan
from titer.assess.trial import open_trial
from titer.cli.main import run
from titer.core.registry import SHELVES
from titer.training.weights import read

ONE_TRIAL = TINY.replace("trials = 2", "trials = 1\nworkers = 1").replace(', "deepfool"', "")


@pytest.fixture
def titer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `titer ARGUMENTS` in an empty folder with tiny.toml, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(ONE_TRIAL)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["titer", *arguments])
        with pytest.raises(SystemExit) as stop:
            run()
        captured = capsys.readouterr()
        assert stop.value.code == 0, captured.err
        return captured.out + captured.err

    return call


def test_dry_run_prints_the_grid_and_writes_nothing(titer, tmp_path: Path) -> None:
    out = titer("assess", "tiny.toml", "--dry-run")
    for part in (
        "linf 0.25 sd, linf 0.5 sd, l2 1 sd",
        "cells     21",
        "none, at, distilled",
        "of training",
        "of attacks",
    ):
        assert part in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


def test_assess_then_report(titer, tmp_path: Path) -> None:
    out = titer("assess", "tiny.toml", "--out", "somewhere")
    assert "report: somewhere/report.html" in out
    assert "[24/24]" in out
    assert "overestimated" in out or "distilled" in out
    first = (tmp_path / "somewhere/report.html").read_bytes()
    (tmp_path / "somewhere/report.html").unlink()
    assert "report: " in titer("report", "somewhere")
    assert (tmp_path / "somewhere/report.html").read_bytes() == first
    assert json.loads((tmp_path / "somewhere/report.json").read_text())["format_version"] == 1


def test_harden_hands_over_weights_that_fit_the_plan(titer, tmp_path: Path) -> None:
    out = titer("harden", "tiny.toml", "--defense", "at", "--out", "hard")
    assert "model card: hard/mlp--at.md" in out
    weights = tmp_path / "hard/mlp--at.safetensors"
    with safe_open(weights, framework="pt") as file:
        assert json.loads(file.metadata()["titer"])["defenses"]
    plan = load_plan(tmp_path / "tiny.toml")
    net = open_trial(plan, 0, cache=tmp_path / "none").base(plan.models[0]).net
    assert net is not None
    net.load_state_dict(read(weights, "weights"))
    facts = json.loads((tmp_path / "hard/mlp--at.json").read_text())
    assert facts["training_ratio"] > 1
    assert {row["threat"] for row in facts["accuracy"]} == {"none", "linf 0.25 sd", "linf 0.5 sd", "l2 1 sd"}
    card = (tmp_path / "hard/mlp--at.md").read_text()
    assert f"| clean | {100 * facts['accuracy'][0]['none']:.1f} % |" in card
    assert "times), base included" in card
    assert not (tmp_path / "hard/mlp--distilled.safetensors").exists()
    assert (tmp_path / "hard/evidence/report.html").is_file()


def test_plugins_lists_every_one_with_its_settings(titer) -> None:
    out = titer("plugins")
    for shelf in SHELVES.values():
        for plugin in shelf.all().values():
            assert f"  {plugin.name}  " in out
            assert all(f"{setting.name}: " in out for setting in plugin.settings())
            assert plugin.paper in out
    listed = json.loads(titer("plugins", "attacks", "--json"))
    assert listed["attacks"][0]["threat_ids"] == ["NISTAML.022", "AML.T0043.000"]
    proofs = {one["name"]: one["norms"] for one in json.loads(titer("plugins", "certifiers", "--json"))["certifiers"]}
    assert proofs["crown"] == ["linf", "l2", "l1"]
    assert proofs["smoothing"] == ["l2"]
    assert "    norms: linf, l1" in titer("plugins", "certifiers")


def test_data_list_names_what_is_here(titer, titer_data: Path) -> None:
    out = titer("data", "list")
    assert "cytology: needs no download" in out
    assert f"chest-xray: chest_xray/pneumoniamnist_28.npz (CC BY 4.0): {titer_data}" in out
    assert "pneumoniamnist_28.npz" in titer("data", "fetch", "chest-xray")


def test_version(titer) -> None:
    assert titer("--version").strip() == "titer 0.1.0"


def test_what_no_attack_could_reach_is_not_shown_as_robust(titer, tmp_path: Path) -> None:
    text = ONE_TRIAL.replace('unit = "sd"\n\n[[threats]]', 'unit = "sd"\naccess = "scores"\n\n[[threats]]')
    (tmp_path / "tiny.toml").write_text(text)
    assert titer("assess", "tiny.toml").count("not attacked") == 6
