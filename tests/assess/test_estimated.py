"""Models that are no networks: fitted by the plan, kept without a pickle, and attacked by their scores alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from titer.assess.estimated import fitted
from titer.assess.models import ModelSpec, check_spec
from titer.assess.plan import parse_plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.core.model import Model
from titer.core.plugins import load_data
from titer.core.protocols import TrainingData
from titer.core.record import Recipe
from titer.core.registry import SHELVES

ESTIMATORS = SHELVES["estimators"].all()
QUICK = {"boosted-trees": {"rounds": 20}, "random-forest": {"trees": 20}, "logistic": {}}
PLAN = """
name = "trees"
trials = 1
workers = 1
attacks = ["fgsm", {{ name = "square", queries = 30 }}, {{ name = "sparse-rs", queries = 60 }}]

[data]
name = "{data}"

[training]
epochs = 1

[[models]]
label = "trees"
estimator = {{ name = "boosted-trees", rounds = 10 }}

[[threats]]
norm = "linf"
eps = [0.5]
unit = "sd"

[[threats]]
norm = "l0"
eps = [4]
unit = "values"

[[defenses]]
label = "squeezed"
defense = {{ name = "feature-squeezing", bits = 4, window = 1 }}

[[defenses]]
label = "at"
defense = {{ name = "adversarial-training", eps = 0.5, unit = "sd", epochs = 1 }}
"""


@pytest.fixture(scope="module")
def cytology() -> TrainingData:
    data = load_data("cytology")
    assert data.pool is not None
    rows = np.random.default_rng(0).permutation(len(data.pool))
    return TrainingData(
        train=data.pool.take(rows[:300]),
        validation=data.pool.take(rows[300:400]),
        classes=2,
        domain=data.domain,
        units={},
        recipe=Recipe(class_weights="balanced"),
    )


def made(name: str, data: TrainingData, seed: int = 0) -> Model:
    spec = ModelSpec(label="own", estimator={"name": name, **QUICK[name]})
    return fitted(spec, data, seed=seed)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_learns_repeats_and_shows_scores_alone(name: str, cytology: TrainingData) -> None:
    model, again, other = made(name, cytology), made(name, cytology), made(name, cytology, seed=1)
    x, y = cytology.validation.x, cytology.validation.y
    logits = model.logits(x)
    assert logits.shape == (100, 2)
    assert logits.dtype == torch.float32
    assert float((logits.argmax(1) == y).float().mean()) > 0.9
    assert torch.equal(logits, again.logits(x))
    assert (model.access, model.net) == ("scores", None)
    assert model.provenance["weights"] == again.provenance["weights"]
    assert (model.provenance["weights"] == other.provenance["weights"]) == (name == "logistic")
    assert torch.equal(model.logits(x[:3]), logits[:3])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_class_that_training_lacks_is_never_likely(name: str, cytology: TrainingData) -> None:
    logits = made(name, replace(cytology, classes=3)).logits(cytology.validation.x)
    assert logits.shape == (100, 3)
    assert not bool((logits.argmax(1) == 2).any())


def test_what_was_fitted_is_kept_and_a_damaged_file_counts_as_absent(cytology: TrainingData, tmp_path: Path) -> None:
    data = replace(cytology, cache=tmp_path)
    first = made("boosted-trees", data)
    kept = next(tmp_path.glob("*.model"))
    second = made("boosted-trees", data)
    assert json.loads(second.provenance["costs"])[0]["cached"]
    assert torch.equal(first.logits(data.validation.x), second.logits(data.validation.x))
    assert first.provenance["weights"] == second.provenance["weights"]
    kept.write_bytes(kept.read_bytes()[:-20])
    third = made("boosted-trees", data)
    assert not json.loads(third.provenance["costs"])[0]["cached"]
    assert third.provenance["weights"] == first.provenance["weights"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"estimator": "boosted-tree"}, "did you mean 'boosted-trees'?"),
        ({"estimator": {"name": "boosted-trees", "rounds": 0}}, "rounds = 0 is not allowed"),
        ({"estimator": "logistic", "weights": "w.pt"}, "weights = 'w.pt' is not allowed with estimator"),
        ({"estimator": "logistic", "preprocess": "unit"}, "preprocess = 'unit' is not allowed with estimator"),
        ({"estimator": "logistic", "network": "mlp"}, "network and estimator are given"),
    ],
)
def test_a_wrong_table_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec(ModelSpec(label="own", **settings), "models.own")  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_a_plan_attacks_trees_by_their_scores_and_skips_what_needs_a_gradient(tmp_path: Path) -> None:
    import tomllib

    text = PLAN.format(data="cytology")
    out = assess(parse_plan(tomllib.loads(text), text.encode(), tmp_path), tmp_path / "run")
    outcomes = pd.read_parquet(out / "outcomes.parquet")
    clean = outcomes[outcomes["attack"] == "none"]
    assert float((clean["label"] == clean["clean_prediction"]).mean()) > 0.85
    for attack in ("square", "sparse-rs"):
        assert float(outcomes[outcomes["attack"] == attack]["won"].mean()) > 0.1
    assert float(outcomes["backwards"].sum()) == 0.0
    reasons = {
        (one["source"], one["attack"]): one["reason"] for one in json.loads((out / "skipped.json").read_text())["cells"]
    }
    assert "fgsm needs access = 'gradient'" in reasons["none", "fgsm"]
    assert "network" in reasons["at", "square"]


def test_images_are_refused(tmp_path: Path) -> None:
    import tomllib

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", images=rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), labels=np.arange(40) % 2)
    text = PLAN.format(data="arrays").replace('name = "arrays"', 'name = "arrays"\nfile = "data.npz"')
    text = text.replace('unit = "sd"', 'unit = "/255"')
    plan = parse_plan(tomllib.loads(text), text.encode(), tmp_path)
    with pytest.raises(SpecError, match=r"models.trees.estimator is not allowed with data of shape \(40, 1, 8, 8\)"):
        assess(plan, tmp_path / "run")
