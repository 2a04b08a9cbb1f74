"""Whose inputs fool whom: models of other sites and architectures, all shown the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.assess.plans import tiny
from tests.report.reading import read_data, read_page

from titer.assess.plan import load_plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.report.build import build

PLAN = """
name = "sites"
trials = 2
seed = 7
attacks = ["fgsm", { name = "pgd", steps = 10 }]

[data]
name = "arrays"
file = "rows.npz"

[training]
epochs = 12
batch_size = 32
learning_rate = 0.01

[[models]]
label = "narrow"
network = { name = "mlp", hidden = [8] }

[[models]]
label = "wide"
network = { name = "mlp", hidden = [32] }

[[threats]]
norm = "linf"
eps = [0.2, 0.8]
unit = "sd"

[transfer]
attack = "pgd"
sites = "site"
rows = 80
"""
NAMES = ["narrow", "narrow, north", "narrow, south", "wide", "wide, north", "wide, south"]


def write_rows(folder: Path) -> None:
    """Two sites that learn the same thing, and a third that has one class only."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 6)) + 1.2 * y[:, None] * np.array([1, 1, 1, 0, 0, 0])
    site = np.where(np.arange(400) % 2, "north", "south").astype("<U9")
    site[(np.arange(400) > 360) & (y == 1)] = "one class"
    np.savez(folder / "rows.npz", x=x.astype(np.float32), y=y, site=site)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sites")
    write_rows(place)
    assess(tiny(place, PLAN), place / "run", workers=1)
    build(place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "transfer.parquet")


def test_every_model_is_shown_what_was_found_on_every_other(rows: pd.DataFrame) -> None:
    pairs = set(zip(rows["found_on"], rows["shown_to"], strict=True))
    assert pairs == {(one, other) for one in NAMES for other in NAMES}
    assert (rows.groupby(["trial", "found_on", "shown_to"]).size() == 80).all()
    assert not (rows["won"] & ~rows["at_stake"]).any()


def test_all_models_answer_the_same_rows(rows: pd.DataFrame) -> None:
    asked = rows.groupby(["trial", "found_on", "shown_to"])["sample_id"].agg(frozenset)
    assert {len(set(some)) for _, some in asked.groupby("trial")} == {1}


def test_the_largest_budget_of_the_family_is_taken(rows: pd.DataFrame) -> None:
    assert set(rows["threat"]) == {"linf 0.8 sd"}


def test_inputs_work_best_where_they_were_found_and_better_than_noise(rows: pd.DataFrame) -> None:
    stake = rows[rows["at_stake"]]
    success = stake.groupby(["found_on", "shown_to"])["won"].mean()
    noise = stake.groupby(["found_on", "shown_to"])["noise_won"].mean()
    own = [success[name, name] for name in NAMES]
    assert min(own) > 0.4
    assert (success > noise + 0.1).all()
    assert np.mean(own) >= success.mean()


def test_a_site_that_lacks_a_class_is_left_out_with_its_reason(folder: Path) -> None:
    found = read_data(folder)["sharing"][0]
    assert found["names"] == NAMES
    refused = dict(found["refused"])
    assert sorted(refused) == ["narrow, one class", "wide, one class"]
    assert "rows of '0': 2 are needed to learn it" in refused["wide, one class"]


def test_the_report_names_the_pairs_that_share_weaknesses(folder: Path) -> None:
    found = read_data(folder)["sharing"][0]
    sharing = [one for one in found["pairs"] if one["shares"]]
    assert sharing, "sites that learn the same thing share its weakness"
    assert all(one["kept"]["low"] >= 0.5 for one in sharing)
    text = " ".join(read_page(folder).sections.values())
    assert "Sites and architectures that share weaknesses" in text
    assert f"{sharing[0]['one']} and {sharing[0]['other']}" in text


def test_a_second_run_does_nothing_again(folder: Path) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (folder / "transfer").rglob("*.json")}
    assert len(kept) == 2 * (len(NAMES) + 2)
    assess(load_plan(folder.parent / "tiny.toml"), folder, workers=1)
    assert {path: path.stat().st_mtime_ns for path in (folder / "transfer").rglob("*.json")} == kept


def test_finds_are_not_the_ones_that_stopped_at_their_own_boundary(folder: Path) -> None:
    notes = json.loads((folder / "transfer.json").read_text())["parts"]
    assert all(part["facts"]["attacked"] > 0 for part in notes if "facts" in part)


def test_another_data_set_is_read_from_the_plans_folder_and_may_not_hold_test_rows(tmp_path: Path) -> None:
    write_rows(tmp_path)
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 200)
    x = rng.normal(size=(200, 6)) + 1.2 * y[:, None]
    np.savez(tmp_path / "other.npz", x=x.astype(np.float32), y=y)
    others = '[{ label = "other", name = "arrays", file = "other.npz" }, { name = "arrays", file = "rows.npz" }]'
    text = PLAN.replace('sites = "site"', f"data = {others}").replace("trials = 2", "trials = 1")
    assess(tiny(tmp_path, text), tmp_path / "run", workers=1)
    parts = json.loads((tmp_path / "run" / "transfer.json").read_text())["parts"]
    skipped = {part["spec"]["found_on"]: part["skipped"] for part in parts if "skipped" in part}
    assert sorted(skipped) == ["narrow, arrays", "wide, arrays"]
    assert "test rows stand in its training data" in skipped["wide, arrays"]
    found = pd.read_parquet(tmp_path / "run" / "transfer.parquet")
    assert set(found["found_on"]) == {"narrow", "wide", "narrow, other", "wide, other"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('sites = "site"', 'sites = "country"', "transfer.sites = 'country' is no column of the data: allowed are "),
        ('attack = "pgd"\nsites', 'attack = "apgd"\nsites', "transfer.attack = 'apgd'"),
        ("rows = 80", "rows = 0", "transfer.rows = 0"),
        ("rows = 80", 'defenses = ["none", "none"]', "transfer.defenses = ['none', 'none'] is not allowed"),
        ("rows = 80", 'shown_to = "al"', "transfer.shown_to = 'al' is not allowed"),
        ("rows = 80", 'data = [{ name = "cytolgy" }]', "did you mean 'cytology'"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_rows(tmp_path)
    assert old in PLAN
    with pytest.raises(SpecError) as error:
        assess(tiny(tmp_path, PLAN.replace(old, new)), tmp_path / "run", workers=1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "outcomes.parquet").exists()
