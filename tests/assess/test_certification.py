"""Certificates of a plan: what is kept of each row, and that no attack of the run beats a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.assess.plans import tiny
from tests.report.reading import read_data, read_page

from titer.assess.certification import about
from titer.assess.contradictions import SMOOTHED_ONLY, UNSOUND, certificate_checks
from titer.assess.run import assess
from titer.assess.study_plans import labels
from titer.core.errors import SpecError
from titer.core.model import network_model
from titer.core.protocols import Certificates
from titer.report.build import build

PROVEN = """
name = "proven"
trials = 2
seed = 7
attacks = [{ name = "pgd", steps = 5 }]

[data]
name = "cytology"

[training]
epochs = 15
batch_size = 32
learning_rate = 0.01

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [8] }

[[threats]]
norm = "linf"
eps = [0.25, 0.5]
unit = "sd"

[[threats]]
norm = "l2"
eps = [0.5]
unit = "sd"

[[threats]]
family = "hide"
norm = "linf"
eps = [0.25]
unit = "sd"
goal = "hide:malignant"

[[threats]]
norm = "l0"
eps = [1]
unit = "values"

[[defenses]]
label = "smoothed"
defense = { name = "randomized-smoothing", sigma = 0.5, unit = "sd", draws = 2, epochs = 3 }

[certification]
certifiers = [
  "interval-bounds",
  { name = "crown", label = "linear bounds" },
  { name = "exact", time_limit = 5.0 },
  { name = "smoothing", selection = 20, draws = 200 },
]
rows = 30
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("certified")
    out = assess(tiny(base, PROVEN), base / "out", workers=1)
    build(out)
    return out


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "certification.parquet")


def parts_of(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "certification.json").read_text())["parts"])


def checks_of(folder: Path) -> list[dict[str, Any]]:
    checks = json.loads((folder / "sanity.json").read_text())["checks"]
    return [one for one in checks if one["check"] == "certificate-contradicted"]


def test_each_certifier_has_each_studied_row_once_under_each_threat_that_it_bounds(rows: pd.DataFrame) -> None:
    keys = ["trial", "model", "defense", "certifier", "threat_family"]
    assert not rows.duplicated([*keys, "sample_id"]).any()
    assert (rows.groupby(keys).size() == 30).all()
    studied = rows.groupby(["trial", "defense", "certifier", "threat_family"])["sample_id"].agg(frozenset)
    assert all(len(set(some)) == 1 for _, some in studied.groupby("trial")), "every model meets the same rows"
    undefended = rows[(rows["defense"] == "none") & (rows["trial"] == 0)]
    found = undefended.groupby("certifier")["threat_family"].nunique().to_dict()
    assert found == {"interval-bounds": 3, "linear bounds": 3, "exact": 2}
    assert set(rows.loc[rows["defense"] == "smoothed", "certifier"]) == {"smoothing"}


def test_radii_are_ordered_by_the_strength_of_the_certifier(rows: pd.DataFrame) -> None:
    linf = rows[(rows["defense"] == "none") & (rows["threat_family"] == "linf")]
    radius = linf.pivot_table(index=["trial", "sample_id"], columns="certifier", values="radius")
    step = 0.5 / 2**8  # each is found to this much
    assert (radius["interval-bounds"] <= radius["linear bounds"] + step).all()
    assert (radius["linear bounds"] <= radius["exact"] + step).all()
    assert (rows["radius"] <= rows["eps"].astype(np.float32)).all()
    assert (radius["exact"] > 0.1).any()


def test_a_row_holds_where_the_proven_answer_is_not_what_the_attacker_wants(rows: pd.DataFrame) -> None:
    any_error = rows[rows["goal"] == "any-error"]
    assert any_error["eligible"].all()
    pd.testing.assert_series_equal(any_error["holds"], any_error["prediction"] == any_error["label"], check_names=False)
    hidden = rows[rows["goal"] == "hide:malignant"]
    assert (hidden["eligible"] == (hidden["label"] == 1)).all()
    assert (hidden["holds"] == ((hidden["label"] == 1) & (hidden["prediction"] == 1))).all()
    assert hidden["holds"].any()
    abstained = rows[rows["prediction"] == -1]
    assert not abstained["holds"].any()
    assert (abstained["radius"] == 0).all()


def test_what_cannot_be_certified_is_kept_with_its_reason(folder: Path) -> None:
    reasons = {
        (one["spec"]["certifier"], one["defense"], one["spec"]["threat_family"]): one["skipped"]
        for one in parts_of(folder)
        if "skipped" in one
    }
    assert reasons["exact", "none", "l2"] == "it proves radii in linf, l1, and l2 is measured in l2"
    assert reasons["smoothing", "none", "linf"] == "it proves radii in l2, and linf is measured in linf"
    assert reasons["interval-bounds", "smoothed", "l0"] == "it proves radii in linf, l2, l1, and l0 is measured in l0"
    assert "is randomised" in reasons["linear bounds", "smoothed", "linf"]
    assert reasons["smoothing", "none", "l2"].endswith("set sigma, or train it with randomized-smoothing")


def test_facts_tell_what_a_certificate_is_of_and_what_it_cost(folder: Path) -> None:
    facts = {one["facts"]["certifier"]: one["facts"] for one in parts_of(folder) if "facts" in one}
    assert facts["smoothing"]["samples_per_row"] == 220
    assert facts["smoothing"]["about"] == "smoothed"
    assert facts["smoothing"]["confidence"] == pytest.approx(0.999)
    assert facts["exact"]["samples_per_row"] is None
    assert facts["exact"]["about"] == "model"
    assert all(one["cpu_seconds_per_row"] > 0 for one in facts.values())


def test_no_attack_of_the_run_beats_a_proof(folder: Path) -> None:
    checks = checks_of(folder)
    proofs = [one for one in checks if one["certifier"] != "smoothing"]
    assert {one["result"] for one in proofs} == {"pass"}
    assert len(proofs) == 8
    assert all(one["value"] == one["limit"] == 0 for one in proofs)
    sampled = [one for one in checks if one["certifier"] == "smoothing"]
    assert len(sampled) == 1
    assert sampled[0]["consequence"] == SMOOTHED_ONLY
    assert sampled[0]["result"] in ("pass", "alarm")


def test_a_fabricated_contradiction_fails_and_stands_on_the_first_page(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    outcomes = pd.read_parquet(copy / "outcomes.parquet")
    table = pd.read_parquet(copy / "certification.parquet")
    proof = (table["certifier"] == "exact") & (table["threat_family"] == "linf") & table["holds"]
    row = table[proof & (table["radius"] >= 0.25)].iloc[0]
    broken = (
        (outcomes["sample_id"] == row["sample_id"])
        & (outcomes["trial"] == row["trial"])
        & (outcomes["defense"] == "none")
        & (outcomes["threat"] == "linf 0.25 sd")
        & (outcomes["attack"] == "pgd")
    )
    assert broken.sum() == 1
    outcomes.loc[broken, "won"] = True
    outcomes.loc[broken, "distance_linf"] = 0.25
    checks = {
        (one["certifier"], one["threat_family"]): one
        for one in certificate_checks(copy, outcomes)
        if one["defense"] == "none"
    }
    found = checks["exact", "linf"]
    assert (found["result"], found["consequence"]) == ("fail", UNSOUND)
    assert f"such as {row['sample_id']} of trial {row['trial'] + 1}" in found["message"]
    assert checks["exact", "hide"]["result"] == "pass"
    sanity = json.loads((copy / "sanity.json").read_text())
    (copy / "sanity.json").write_text(json.dumps(sanity | {"checks": [*sanity["checks"], found]}))
    build(copy)
    first = read_page(copy).sections["summary"]
    assert UNSOUND in first
    assert "the proof is wrong" in first


def frames(radius: float, eps: float, distance: float, *, won: bool, holds: bool = True, rows: int = 20) -> Any:
    """Return certificates and outcomes in which the first row is attacked once, and won or not."""
    ids = [f"p{index}" for index in range(rows)]
    key = {"trial": 0, "model": "m", "defense": "d", "threat_family": "linf"}
    proven = pd.DataFrame({"sample_id": ids, "certifier": "c", "holds": holds, "radius": np.float32(radius)} | key)
    met = pd.DataFrame(
        {"sample_id": ids, "attack": "pgd", "eps": eps, "won": [won] + [False] * (rows - 1)}
        | {"distance_linf": distance}
        | key
    )
    return proven, met


def write(out: Path, proven: pd.DataFrame, **facts: Any) -> Path:
    one = {"certifier": "c", "threat_family": "linf", "norm": "linf", "about": "model", "confidence": 1.0} | facts
    part = {"model": "m", "defense": "d", "facts": one}
    proven.to_parquet(out / "certification.parquet")
    (out / "certification.json").write_text(json.dumps({"parts": [part]}))
    return out


@pytest.mark.parametrize(
    ("radius", "eps", "distance", "holds", "expected"),
    [
        (0.7, 0.7, 0.7, True, "fail"),  # 0.7 is less in float32: the budget is compared as such
        (0.5, 0.7, 0.7, True, "not applicable"),  # lost behind the radius, and never met inside it
        (0.5, 0.25, 0.25, True, "fail"),
        (0.5, 0.25, 0.25, False, "not applicable"),  # proven to be wrong
    ],
)
def test_a_loss_inside_the_radius_is_a_contradiction(
    tmp_path: Path, radius: float, eps: float, distance: float, holds: bool, expected: str
) -> None:
    proven, met = frames(radius, eps, distance, won=True, holds=holds)
    (found,) = certificate_checks(write(tmp_path, proven), met)
    assert found["result"] == expected
    if expected == "fail":
        assert found["value"] == 1 / 20


def test_a_smaller_find_under_a_large_budget_contradicts_too(tmp_path: Path) -> None:
    proven, met = frames(0.5, 0.25, 0.25, won=False)
    nearer = met.assign(eps=1.0, won=[True] + [False] * 19, distance_linf=0.3)
    (found,) = certificate_checks(write(tmp_path, proven), pd.concat([met, nearer]))
    assert found["result"] == "fail"
    behind = nearer.assign(distance_linf=0.5)
    (found,) = certificate_checks(write(tmp_path, proven), pd.concat([met, behind]))
    assert found["result"] == "pass"


def test_an_unlucky_sample_refutes_no_certificate_of_some_confidence(tmp_path: Path) -> None:
    proven, met = frames(0.5, 0.25, 0.25, won=True)
    sampled = {"about": "smoothed", "confidence": 0.99}
    (chance,) = certificate_checks(write(tmp_path, proven, **sampled), met)
    assert chance["result"] == "pass", "one of twenty is lost by chance with a probability of 18 %"
    (beyond,) = certificate_checks(write(tmp_path, proven, about="smoothed", confidence=0.999), met)
    assert (beyond["result"], beyond["consequence"]) == ("alarm", SMOOTHED_ONLY)
    (other,) = certificate_checks(write(tmp_path, proven, about="another", confidence=0.999), met)
    assert other["result"] == "not applicable"


def test_a_run_without_certification_has_no_such_check(tmp_path: Path) -> None:
    assert certificate_checks(tmp_path, pd.DataFrame()) == []


def test_a_certificate_by_noise_of_an_undefended_network_is_of_another_model() -> None:
    model = network_model("m", torch.nn.Linear(2, 2), lambda x: x, {})
    proof = Certificates(prediction=torch.zeros(1, dtype=torch.int64), radius=torch.zeros(1))
    sampled = Certificates(prediction=proof.prediction, radius=proof.radius, confidence=0.99)
    assert about(model, proof, {}) == "model"
    assert about(model, sampled, {"sigma": 0.5}) == "another"


def test_a_second_call_certifies_nothing_again(folder: Path) -> None:
    kept = folder / "certification/cells"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    table = (folder / "certification.parquet").read_bytes()
    assess(tiny(folder.parent, PROVEN), folder, workers=1)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert (folder / "certification.parquet").read_bytes() == table


def test_the_report_sets_what_is_proven_beside_what_attacks_left(folder: Path, rows: pd.DataFrame) -> None:
    found = read_data(folder)["certified"]
    one = next(c for c in found["certificates"] if (c["certifier"], c["family"]) == ("exact", "linf"))
    own = rows[(rows["certifier"] == "exact") & (rows["threat_family"] == "linf")]
    safe = (own["holds"] & (own["radius"] >= np.float32(0.25))).groupby(own["trial"]).mean().mean()
    at = one["budgets"][0]
    assert at["threat"] == "linf 0.25 sd"
    assert at["proven"]["mean"] == pytest.approx(safe)
    assert at["proven"]["low"] < safe < at["proven"]["high"]
    assert at["proven"]["mean"] <= at["withstood"]["mean"]
    assert at["withstood"]["mean"] - at["proven"]["mean"] == pytest.approx(at["neither"]["mean"])
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    met = outcomes[(outcomes["threat"] == "linf 0.25 sd") & (outcomes["defense"] == "none")]
    met = met[met["source"] == "none"].merge(own[["trial", "sample_id"]], on=["trial", "sample_id"])
    lost = met.groupby(["trial", "sample_id"])["won"].any().groupby("trial").mean().mean()
    assert at["withstood"]["mean"] == pytest.approx(1 - lost), "the same rows as the certifier's"
    text = read_page(folder).sections["certificates"]
    assert "Not certified, and why" in text
    assert "safe whatever an attacker tries" in text
    assert "each with a confidence of 99.9" in text
    assert "hide a finding: malignant" in text


def test_labels_name_settings_only_where_several_are_of_one_plugin() -> None:
    specs = ("crown", {"name": "smoothing", "draws": 100}, {"name": "smoothing", "draws": 1000, "label": "many"})
    assert labels(specs) == ("crown", "smoothing", "many")
    assert labels(({"name": "smoothing", "draws": 100}, {"name": "smoothing", "sigma": 1, "draws": 9})) == (
        "smoothing (draws = 100)",
        "smoothing (sigma = 1, draws = 9)",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('certifiers = ["crwon"]', "certification.certifiers[0] = 'crwon' is not known"),
        ('certifiers = ["crown", { name = "crown" }]', "certification.certifiers = 'crown' stands twice"),
        ('certifiers = [{ name = "crown", label = 3 }]', "certification.certifiers[0].label = 3 is not allowed"),
        ('certifiers = [{ name = "smoothing", draws = 0 }]', "certification.certifiers[0].draws = 0 is not allowed"),
        ('certifiers = ["crown"]\nrows = 0', "certification.rows = 0 is not allowed"),
        ('certifiers = ["crown"]\ndefenses = ["jpg"]', "certification.defenses = 'jpg' is not known"),
        ("certifiers = []", "certification.certifiers"),
        ('certifier = ["crown"]', "certifier"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        tiny(tmp_path, PROVEN.split("[certification]")[0] + f"[certification]\n{given}\n")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
