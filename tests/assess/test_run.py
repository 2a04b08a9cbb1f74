"""A whole assessment on real data: its tables obey the contract of the run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.assess.plans import TINY, tiny

from titer.assess.grid import count_steps
from titer.assess.pool import Message
from titer.assess.run import assess
from titer.core.errors import SpecError

TABLES = ("outcomes.parquet", "metrics.parquet")
FILES = ("statistics.json", "sanity.json", "skipped.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished tiny run, in this process."""
    base = tmp_path_factory.mktemp("run")
    return assess(tiny(base), base / "out", workers=1)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "outcomes.parquet")


def same_tables(one: Path, other: Path) -> None:
    """Assert that two run folders hold the same numbers."""
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.read_parquet(one / name), pd.read_parquet(other / name))
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_every_row_is_there_once(outcomes: pd.DataFrame) -> None:
    keys = ["trial", "model", "defense", "source", "attack", "threat", "sample_id"]
    assert not outcomes.duplicated(keys).any()
    threats, attacks, defenses, trials = 3, 3, 3, 2
    adaptive, transfer, clean = defenses * threats * attacks, (defenses - 1) * threats * attacks, defenses
    rows = outcomes.groupby("trial")["sample_id"].nunique().iloc[0]
    assert len(outcomes) == trials * rows * (adaptive + transfer + clean)


def test_a_won_row_is_inside_its_budget(outcomes: pd.DataFrame) -> None:
    won = outcomes[(outcomes["attack"] != "none") & outcomes["won"]]
    distance = np.select(
        [won["norm"] == norm for norm in ("linf", "l2")], [won[f"distance_{norm}"] for norm in ("linf", "l2")]
    )
    assert (distance <= won["eps"] * 1.0001).all()
    assert len(won) > 100


def test_a_row_that_is_wrong_when_clean_costs_nothing(outcomes: pd.DataFrame) -> None:
    own = outcomes[(outcomes["attack"] != "none") & (outcomes["source"] == outcomes["defense"])]
    wrong = own[own["clean_prediction"] != own["label"]]
    assert len(wrong) > 0
    assert wrong["won"].all()
    assert (wrong[["forwards", "backwards", "distance_linf"]] == 0).all().all()
    assert (wrong["adversarial_prediction"] == wrong["clean_prediction"]).all()


def test_a_row_that_lost_keeps_its_class(outcomes: pd.DataFrame) -> None:
    lost = outcomes[~outcomes["won"]]
    assert (lost["adversarial_prediction"] == lost["label"]).all()


def test_larger_budgets_never_help_the_model_against_deepfool(outcomes: pd.DataFrame) -> None:
    rows = outcomes[(outcomes["attack"] == "deepfool") & (outcomes["threat_family"] == "linf")]
    wide = rows.pivot_table(
        index=["trial", "defense", "source", "sample_id"], columns="eps", values="won", aggfunc="max"
    )
    assert (wide[0.25].astype(bool) <= wide[0.5].astype(bool)).all()


def test_the_worst_case_is_the_union_of_attacks(folder: Path, outcomes: pd.DataFrame) -> None:
    metrics = pd.read_parquet(folder / "metrics.parquet")
    own = outcomes[(outcomes["attack"] != "none") & (outcomes["source"] == outcomes["defense"])]
    union = own.groupby(["defense", "threat", "trial", "sample_id"])["won"].any()
    robust = 1 - union.groupby(["defense", "threat", "trial"]).mean()
    worst = metrics[(metrics["attack"] == "worst-case") & (metrics["group"] == "all")]
    found = worst.set_index(["defense", "threat", "trial"])["accuracy"]
    pd.testing.assert_series_equal(found.sort_index(), robust.sort_index(), check_names=False)


def test_probabilities_agree_with_predictions(outcomes: pd.DataFrame) -> None:
    clean = np.stack(outcomes["clean_probabilities"].to_numpy())
    np.testing.assert_allclose(clean.sum(1), 1, atol=1e-5)
    assert (clean.argmax(1) == outcomes["clean_prediction"]).all()


def test_domain_rules_hold_for_every_example(folder: Path) -> None:
    found = list((folder / "examples").glob("*.npz"))
    assert found
    for path in found:
        with np.load(path, allow_pickle=False) as file:
            adversarial, meta = file["adversarial"], json.loads(str(file["meta"]))
        assert meta["feature_names"][0] == "mean radius"
        assert (adversarial >= 0).all()
        assert (adversarial[:, 20:] >= adversarial[:, :10]).all()


def test_distillation_is_called_out(folder: Path) -> None:
    checks = json.loads((folder / "sanity.json").read_text())["checks"]
    failed = {(one["defense"], one["check"]) for one in checks if one["result"] == "fail"}
    assert ("distilled", "gradients-not-zero") in failed
    assert not [one for one in failed if one[0] == "none"]


def test_manifest_names_what_ran(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["n_test"] == 190
    assert [one["label"] for one in manifest["threats"]] == ["linf 0.25 sd", "linf 0.5 sd", "l2 1 sd"]
    assert len({one["sha256"] for one in manifest["weights"]}) == 6
    assert manifest["packages"]["torch"].startswith("2.13")
    assert (folder / "plan.toml").read_text() == TINY


def test_costs_add_up(folder: Path) -> None:
    costs = json.loads((folder / "costs.json").read_text())
    assert len(costs["training"]) == 6
    assert len(costs["inference"]) == 6
    by_defense = {(one["trial"], one["defense"]): one["cpu_seconds"] for one in costs["training"]}
    assert by_defense[0, "at"] > by_defense[0, "none"] > 0
    assert all(one["cpu_seconds"] >= one["attack_cpu_seconds"] for one in costs["attacks"])


def test_the_same_plan_gives_the_same_tables_with_other_workers(folder: Path, tmp_path: Path) -> None:
    again = assess(tiny(tmp_path), tmp_path / "out", workers=2)
    same_tables(folder, again)


def test_a_second_call_runs_no_cell_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    messages: list[Message] = []
    assess(tiny(folder.parent), folder, workers=1, listener=messages.append)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before
    assert sum(message.done for message in messages) == count_steps(tiny(folder.parent)) == 54 + 6


def test_scores_access_is_a_skipped_cell_with_its_reason(tmp_path: Path) -> None:
    text = TINY.replace("trials = 2", "trials = 1").replace(
        'unit = "sd"\n\n[[threats]]', 'unit = "sd"\naccess = "scores"\n\n[[threats]]'
    )
    out = assess(tiny(tmp_path, text), tmp_path / "out", workers=1)
    skipped = json.loads((out / "skipped.json").read_text())["cells"]
    assert {one["attack"] for one in skipped} == {"fgsm", "pgd", "deepfool"}
    assert all("access = 'scores'" in one["reason"] for one in skipped)
    assert set(pd.read_parquet(out / "outcomes.parquet")["threat_family"]) == {"none", "l2"}


def test_a_defence_that_cannot_work_is_skipped_with_its_reason(tmp_path: Path) -> None:
    text = TINY.replace('defense = { name = "distillation", temperature = 20 }', 'defense = "jpeg"').replace(
        "trials = 2", "trials = 1"
    )
    out = assess(tiny(tmp_path, text), tmp_path / "out", workers=1)
    skipped = json.loads((out / "skipped.json").read_text())["cells"]
    assert {one["source"] for one in skipped} == {"distilled"}
    assert all("2-D images" in one["reason"] for one in skipped)


def test_one_folder_takes_one_assessment(folder: Path) -> None:
    import fcntl

    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SpecError, match="in use"):
            assess(tiny(folder.parent), folder, workers=1)
