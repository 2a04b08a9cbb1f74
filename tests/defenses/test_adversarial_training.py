"""Adversarial training: it buys robustness, with any attack inside, and leaves the model it was given alone."""

import json
from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.training.weights import digest

EPS = 6.0
PLAIN = {"name": "adversarial-training", "eps": EPS, "unit": "grey level", "epochs": 6}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_buys_robustness(norm, images, fragile, image_threat, robust):
    data, test = fragile
    eps = {"linf": 10.0, "l2": 70.0}[norm]
    standard = make_defense({"name": "distillation", "temperature": 1.0})(images.model, data, rng=_rng())
    trained = make_defense({**PLAIN, "norm": norm, "eps": eps, "epochs": 15})(standard, data, rng=_rng())
    before, after = (robust(model, test, image_threat(norm, eps)) for model in (standard, trained))
    assert before < 0.5
    assert after > before + 0.25
    assert float((trained.logits(test.x).argmax(1) == test.y).float().mean()) > 0.85


@pytest.mark.parametrize(
    "attack", ["pgd", "fgsm", {"name": "bim", "steps": 3}, {"name": "pgd", "steps": 2, "step": 0.5}]
)
def test_any_attack_stands_inside_and_the_argument_is_unchanged(attack, images, fragile, image_threat, robust):
    data, test = fragile
    standard = make_defense({"name": "distillation", "temperature": 1.0})(images.model, data, rng=_rng())
    before = digest(standard.net.state_dict())
    data_before = data.train.digest()
    trained = make_defense({**PLAIN, "attack": attack, "eps": 10.0})(standard, data, rng=_rng())
    assert digest(standard.net.state_dict()) == before
    assert data.train.digest() == data_before
    assert trained.provenance["weights"] != before
    accuracies = [robust(model, test, image_threat("linf", 10.0)) for model in (standard, trained)]
    assert accuracies[1] > accuracies[0] + 0.05


def test_plain_pgd_means_seven_steps(images):
    data = replace(images.data, train=images.data.train.take(range(64)))
    one, seven, forty = (
        make_defense({**PLAIN, "attack": attack, "epochs": 1})(images.model, data, rng=_rng()).provenance["training"]
        for attack in ("pgd", {"name": "pgd", "steps": 7, "step": 0.25}, {"name": "pgd", "steps": 40})
    )
    assert one == seven
    assert one != forty


def test_every_setting_is_part_of_the_cache_key(images):
    data = replace(images.data, train=images.data.train.take(range(64)))
    changes = [{}, {"eps": 3.0}, {"norm": "l2"}, {"attack": "fgsm"}, {"learning_rate": 1e-4}, {"warm_start": False}]
    models = [make_defense({**PLAIN, "epochs": 1, **own})(images.model, data, rng=_rng()) for own in changes]
    assert len({model.provenance["training"] for model in models}) == len(changes)


def test_it_repeats(images):
    data = replace(images.data, train=images.data.train.take(range(128)))
    first, again, other = (
        make_defense({**PLAIN, "epochs": 2})(images.model, data, rng=_rng(seed)).provenance["weights"]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_its_cost_is_counted_beside_what_came_before(images):
    trained = make_defense({**PLAIN, "epochs": 2})(images.model, images.data, rng=_rng())
    costs = json.loads(trained.provenance["costs"])
    assert len(costs) == 2
    assert costs[1]["epochs"] <= 2


def test_a_table_keeps_its_rules_in_training(tables, table_threat, robust):
    spec = {"name": "adversarial-training", "eps": 0.5, "unit": "sd", "epochs": 2}
    trained = make_defense(spec)(tables.model, tables.data, rng=_rng())
    accuracies = [robust(model, tables.test, table_threat("linf", 0.5)) for model in (tables.model, trained)]
    assert accuracies[1] >= accuracies[0] - 0.02


def test_what_it_cannot_train_is_incompatible(images):
    with pytest.raises(Incompatible, match="unit 'sd' is not one of this data set's: grey level"):
        make_defense({**PLAIN, "unit": "sd"})(images.model, images.data, rng=_rng())
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense(PLAIN)(Model(name="remote", logits=lambda x: x), images.data, rng=_rng())
    behind = make_defense("jpeg")(images.model, images.data, rng=_rng())
    with pytest.raises(Incompatible, match="has no network to train"):
        make_defense(PLAIN)(behind, images.data, rng=_rng())


def test_a_least_perturbation_attack_inside_is_incompatible(images):
    # DeepFool stops at the boundary and ignores eps: it does not climb the loss that training minimises.
    with pytest.raises(Incompatible, match="a least-perturbation attack needs a goal that can be reached"):
        make_defense({**PLAIN, "attack": "deepfool"})(images.model, images.data, rng=_rng())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "pdg"}, r"defenses\.adversarial-training\.attack = 'pdg' is not known: .*did you mean 'pgd'"),
        ({"attack": {"name": "pgd", "steps": 0}}, r"defenses\.adversarial-training\.attack\.steps = 0 is not allowed"),
        ({"eps": 0.0}, r"eps = 0.0 is not allowed"),
        ({"norm": "l3"}, "norm = 'l3' is not allowed"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_trained(change, message):
    with pytest.raises(SpecError, match=message):
        make_defense({**PLAIN, **change})
