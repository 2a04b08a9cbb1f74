"""Class imbalance: what the rare class gains, clean and under attack, and what is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.defenses.imbalance import _filled, _repeated
from titer.training.objectives import penalty

ROBUST = {
    "name": "fast-adversarial-training",
    "eps": 0.3,
    "unit": "sd",
    "epochs": 12,
    "learning_rate": 1e-2,
    "warm_start": False,
}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _rare(part: Samples, keep: int) -> Samples:
    """Return the part with few rows of class 1."""
    rows = (part.y == 0).nonzero().flatten().tolist() + (part.y == 1).nonzero().flatten().tolist()[:keep]
    return part.take(rows)


@pytest.fixture
def skewed(tables) -> TrainingData:
    recipe = replace(tables.data.recipe, epochs=8, patience=8)
    return replace(tables.data, train=_rare(tables.data.train, 8), recipe=recipe)


@pytest.fixture
def close(tables):
    """The same rows with classes that overlap, so that a model must choose whom to miss."""

    def blurred(part, seed):
        noise = torch.randn(part.x.shape, generator=_rng(seed)) * tables.data.units["sd"]
        x = (part.x + 1.5 * noise).abs()
        x[:, 4:] = torch.maximum(x[:, 4:], x[:, :2])
        return replace(part, x=x)

    recipe = replace(tables.data.recipe, epochs=10, patience=10)
    train, validation = (_rare(blurred(part, 1), 10) for part in (tables.data.train, tables.data.validation))
    return replace(tables.data, train=train, validation=validation, recipe=recipe), blurred(tables.test, 2)


def _sensitivity(model, test, x=None):
    rare = test.y == 1
    return float((model.logits(test.x if x is None else x)[rare].argmax(1) == 1).float().mean())


@pytest.mark.parametrize("spec", [{"costs": [1.0, 40.0]}, {"method": "oversample"}, {"method": "smote"}])
def test_the_rare_class_is_found_more_often(spec, tables, close):
    data, test = close
    plain = make_defense({"name": "imbalance", "costs": [1.0, 1.0]})(tables.model, data, rng=_rng())
    aware = make_defense({"name": "imbalance", **spec})(tables.model, data, rng=_rng())
    assert _sensitivity(aware, test) > _sensitivity(plain, test) + 0.1


def test_it_composes_with_adversarial_training(tables, close, table_threat):
    """The inner defence trains on the balanced part: under attack, too, the rare class is found more often."""
    from titer.core.plugins import make_attack

    data, test = close
    aware = make_defense({"name": "imbalance", "method": "oversample", "defense": ROBUST})
    found = {}
    for name, defense in (("alone", make_defense(ROBUST)), ("aware", aware)):
        model = defense(tables.model, data, rng=_rng())
        x_adv = make_attack("pgd")(model, test.x, test.y, table_threat("linf", 0.3), rng=_rng(1))
        found[name] = _sensitivity(model, test, x_adv)
    assert found["aware"] > found["alone"] + 0.1


def test_costs_weigh_with_mean_one(skewed):
    weights = penalty(replace(skewed, costs=(1.0, 5.0))).weights
    assert float(weights[1] / weights[0]) == pytest.approx(5.0)
    assert float(weights[skewed.train.y].mean()) == pytest.approx(1.0)


def test_oversampling_repeats_rows_until_classes_are_even(skewed):
    rows = _repeated(skewed, _rng())
    assert torch.bincount(rows.y).tolist() == [200, 200]
    assert torch.equal(rows.x[: len(skewed.train)], skewed.train.x)
    known = {tuple(row.tolist()) for row in skewed.train.x}
    assert all(tuple(row.tolist()) in known for row in rows.x)


def test_smote_adds_rows_between_neighbours_that_keep_the_rules(skewed):
    from imblearn.over_sampling import SMOTE

    rows = _filled(SMOTE, skewed, 5, _rng())
    made = rows.x[len(skewed.train) :]
    assert torch.bincount(rows.y).tolist() == [200, 200]
    assert len(set(rows.patients)) == len(rows)
    own = skewed.train.x[skewed.train.y == 1]
    assert bool(((made >= own.amin(0) - 1e-3) & (made <= own.amax(0) + 1e-3)).all())
    for rule in skewed.domain:
        assert bool(rule.contains(made, made).all())
    assert np.isfinite(made.numpy()).all()


def test_smote_is_for_tables(images):
    with pytest.raises(Incompatible, match=r"'smote' fills up tables, not rows of shape \(1, 8, 8\)"):
        make_defense({"name": "imbalance", "method": "smote"})(images.model, images.data, rng=_rng())


@pytest.mark.parametrize("method", ["weights", "oversample", "smote"])
def test_one_patient_in_a_class_is_told(method, tables):
    data = replace(tables.data, train=_rare(tables.data.train, 1))
    with pytest.raises(Incompatible, match=r"needs 2 patients of each class in the training part, and class 1 has 1"):
        make_defense({"name": "imbalance", "method": method})(tables.model, data, rng=_rng())


def test_other_bad_input_is_told_in_one_line(tables):
    with pytest.raises(Incompatible, match=r"imbalance\.costs = \[1\.0, 2\.0, 3\.0\] is not allowed: it takes 2"):
        make_defense({"name": "imbalance", "costs": [1.0, 2.0, 3.0]})(tables.model, tables.data, rng=_rng())
    with pytest.raises(Incompatible, match="balances classes, and this model's output is none"):
        make_defense("imbalance")(tables.model, replace(tables.data, output="value"), rng=_rng())
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense("imbalance")(Model(name="remote", logits=lambda x: x), tables.data, rng=_rng())
    with pytest.raises(SpecError, match=r"costs = \[1\.0, 2\.0\] is not allowed with method = 'smote'"):
        make_defense({"name": "imbalance", "method": "smote", "costs": [1.0, 2.0]})
    with pytest.raises(SpecError, match=r"imbalance\.defense = 'jpg' is not known: .*did you mean 'jpeg'"):
        make_defense({"name": "imbalance", "defense": "jpg"})


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(SpecError, match=r"pip install 'titer\[tables\]'"):
        make_defense({"name": "imbalance", "method": "smote"})
