"""Whole assessments of findings, of a value and of a mask: from an .npz file to the report."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.assess.outputs import WRITERS, plan_text
from typer.testing import CliRunner

from titer.cli.main import app

THREATS = {
    "labels": {
        "linf": 'norm = "linf"\neps = [64]\nunit = "/255"',
        "hidden": 'norm = "linf"\neps = [64]\nunit = "/255"\nfamily = "hidden"\ngoal = "hide:nodule"',
        "invented": 'norm = "l2"\neps = [6]\nunit = "range"\nfamily = "invented"\ngoal = "invent:mass"',
    },
    "value": {
        "linf": 'norm = "linf"\neps = [1]\nunit = "sd"',
        "raised": 'norm = "l2"\neps = [2]\nunit = "sd"\nfamily = "raised"\ngoal = "raise:24"',
        "lowered": 'norm = "l1"\neps = [4]\nunit = "sd"\nfamily = "lowered"\ngoal = "lower:24"',
    },
    "mask": {
        "linf": 'norm = "linf"\neps = [64]\nunit = "/255"',
        "hidden": 'norm = "linf"\neps = [48]\nunit = "/255"\nfamily = "hidden"\ngoal = "hide:lesion"',
        "shrunk": 'norm = "l2"\neps = [4]\nunit = "range"\nfamily = "shrunk"\ngoal = "shrink:0.5"',
        "moved": 'norm = "linf"\neps = [64]\nunit = "/255"\nfamily = "moved"\ngoal = "move:3"',
    },
}
ATTACKS = '[{ name = "apgd", steps = 20 }, { name = "pgd", steps = 20 }, "deepfool", { name = "fmn", steps = 30 }]'
HARDENED = {
    task: f'\n[[defenses]]\nlabel = "hardened"\ndefense = {{ name = "adversarial-training", {own}, epochs = 2 }}'
    for task, own in {
        "labels": 'eps = 8, unit = "/255"',
        "value": 'eps = 0.2, unit = "sd"',
    }.items()
}


def _assessed(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    out = folder / "run"
    done = CliRunner().invoke(app, ["assess", str(path), "--out", str(out), "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module", params=THREATS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One assessment of each kind of output; of the two quick ones with a hardened model."""
    task: str = request.param
    folder = tmp_path_factory.mktemp(task)
    WRITERS[task](folder)
    text = plan_text(task, list(THREATS[task].values()), attacks=ATTACKS, defenses=HARDENED.get(task, ""))
    return task, _assessed(folder, text)


def test_each_attack_wins_at_a_large_budget_and_each_goal_is_reached(run: tuple[str, Path]) -> None:
    task, out = run
    metrics = pd.read_parquet(out / "metrics.parquet")
    whole = metrics[(metrics["group"] == "all") & (metrics["defense"] == "none") & (metrics["source"] == "none")]
    clean = whole[whole["attack"] == "none"]
    assert float(clean["accuracy"].iloc[0]) > 0.85
    for attack in ("apgd", "pgd", "fmn"):
        success = whole[whole["attack"] == attack].set_index("threat_family")["attack_success_rate"]
        assert set(success.index) == set(THREATS[task])
        assert bool((success > 0.5).all()), (attack, success.to_dict())


def test_rows_that_the_goal_does_not_apply_to_are_not_attacked_and_not_won(run: tuple[str, Path]) -> None:
    task, out = run
    rows = pd.read_parquet(out / "outcomes.parquet")
    goals = rows[rows["attack"] != "none"].drop_duplicates("threat_family").set_index("threat_family")["goal"]
    wanted = {name: (re.findall(r'goal = "(.*)"', text) or ["any-error"])[0] for name, text in THREATS[task].items()}
    assert goals.to_dict() == wanted
    assert bool(rows.loc[rows["attack"] == "none", "eligible"].all())
    spared = rows[~rows["eligible"]]
    assert len(spared) == 0 if task == "value" else len(spared) > 0
    assert not bool(spared["won"].any())
    assert float(spared["forwards"].sum()) == 0.0
    assert bool((spared["clean_prediction"] == spared["adversarial_prediction"]).all())


def test_predictions_say_right_and_wrong_and_errors_say_how_much(run: tuple[str, Path]) -> None:
    task, out = run
    rows = pd.read_parquet(out / "outcomes.parquet")
    whole = rows[(rows["goal"] == "any-error") & (rows["attack"] != "none")]
    limit = {"labels": 0.0, "value": 12.0, "mask": 0.5}[task]
    for name in ("clean", "adversarial"):
        assert bool(((whole[f"{name}_error"] > limit) == (whole[f"{name}_prediction"] == 1)).all())
    assert set(whole["label"]) == {0}
    won = whole[whole["won"] & whole["eligible"]]
    assert bool((won["adversarial_error"] > limit).all())
    assert all(len(pair) == 2 and pd.isna(pair).all() for pair in whole["clean_probabilities"])


def test_a_goal_about_one_finding_is_told_of_that_finding(run: tuple[str, Path]) -> None:
    task, out = run
    if task != "labels":
        return  # of findings only
    rows = pd.read_parquet(out / "outcomes.parquet")
    rows = rows[(rows["threat_family"] == "hidden") & (rows["attack"] == "pgd") & (rows["defense"] == "none")]
    assert bool((rows["eligible"] == (rows["label"] == 1)).all())
    present = rows[rows["label"] == 1]
    assert bool((present["won"] == (present["adversarial_prediction"] == 0)).all())
    chances = np.stack(present["adversarial_probabilities"].tolist())
    assert bool(((chances[:, 1] > 0.5) == (present["adversarial_prediction"] == 1)).all())


def test_the_run_has_its_report_its_examples_and_its_probes(run: tuple[str, Path]) -> None:
    task, out = run
    assert (out / "report.html").stat().st_size > 10_000
    assert json.loads((out / "manifest.json").read_text())["data"]["output"] == task
    with np.load(next((out / "examples").glob("*.npz"))) as example:
        assert example["truth"].shape[1:] == example["adversarial_report"].shape[1:]
        assert set(example["label"].tolist()) <= {0, 1}
    probes = {
        (check["check"], check["result"])
        for check in json.loads((out / "sanity.json").read_text())["checks"]
        if check["check"] in ("gradients-not-zero", "loss-rises-along-the-attack", "randomness-declared")
    }
    assert {result for _, result in probes} == {"pass"}


def _nrrd(path: Path) -> np.ndarray:
    """Read a volume of the NRRD format (teem.sourceforge.net/nrrd/format.html) with gzip encoding, [slices, H, W]."""
    content = path.read_bytes()
    header, data = content.split(b"\n\n", 1)
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    kind = {"short": "<i2", "int": "<i4"}[fields["type"]]
    assert (fields["encoding"], fields["endian"]) == ("gzip", "little")
    sizes = [int(size) for size in fields["sizes"].split()]
    return np.frombuffer(gzip.decompress(data), dtype=kind).reshape(sizes[::-1])


def test_real_brain_slices_go_through_segmentation(titer_data: Path, tmp_path: Path) -> None:
    """Two volumes with a tumour: too few to learn from, enough to show that real slices and masks pass."""
    images, masks = [], []
    for volume in ("brain1", "brain2"):
        image, mask = (_nrrd(titer_data / "brain_mri" / f"{volume}_{kind}.nrrd") for kind in ("image", "label"))
        half = (slice(None), slice(0, 256, 4), slice(0, 256, 4))
        images.append(255.0 * image[half].clip(0) / image.max())
        masks.append((mask[half] > 0).astype(np.uint8))
    stacked = np.concatenate(masks)
    assert 5 <= int(stacked.any((1, 2)).sum()) <= 20
    np.savez(tmp_path / "mask.npz", images=np.concatenate(images).astype(np.uint8), labels=stacked)
    threat = 'norm = "linf"\neps = [64]\nunit = "/255"'
    out = _assessed(tmp_path, plan_text("mask", [threat], attacks='["fgsm"]', epochs="30"))
    rows = pd.read_parquet(out / "outcomes.parquet")
    attacked = rows[rows["attack"] == "fgsm"]
    assert set(attacked["eligible"]) == {True, False}, "most slices show no tumour"
    assert float(attacked["adversarial_error"].max()) > 0.5


def test_a_hardened_value_keeps_its_unit_in_its_weights(tmp_path: Path) -> None:
    WRITERS["value"](tmp_path)
    threat = THREATS["value"]["linf"]
    path = tmp_path / "plan.toml"
    path.write_text(plan_text("value", [threat], attacks='["fgsm"]', defenses=HARDENED["value"]))
    done = CliRunner().invoke(app, ["harden", str(path), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert done.exit_code == 0, done.output
    (weights,) = (tmp_path / "out").glob("*.safetensors")
    rows = pd.read_parquet(tmp_path / "out" / "evidence" / "outcomes.parquet")
    before = rows[(rows["attack"] == "none") & (rows["defense"] == "hardened")]["clean_error"].to_numpy()
    given = f'{{ name = "mlp", hidden = [32] }}\nweights = "{weights}"'
    out = _assessed(tmp_path, plan_text("value", [threat], attacks='["fgsm"]', network=given))
    rows = pd.read_parquet(out / "outcomes.parquet")
    after = rows[rows["attack"] == "none"]["clean_error"].to_numpy()
    assert np.allclose(before, after, atol=1e-3)
