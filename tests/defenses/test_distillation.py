"""Defensive distillation: it must hide its gradients, as in the paper, and must not hide from our attacks."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack, make_defense
from titer.training.weights import digest

TEMPERATURE = 20.0


@pytest.fixture(scope="module")
def longer(images):
    return replace(images.data, recipe=replace(images.data.recipe, epochs=60, patience=60))


@pytest.fixture(scope="module")
def student(images, longer):
    spec = {"name": "distillation", "temperature": TEMPERATURE}
    return make_defense(spec)(images.model, longer, rng=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def undefended(images, longer):
    spec = {"name": "distillation", "temperature": 1.0}
    return make_defense(spec)(images.model, longer, rng=torch.Generator().manual_seed(0))


def _lead(model, part):
    return float((model.logits(part.x).diff(dim=1)).abs().median())


def test_its_logits_are_larger_by_about_the_temperature(student, undefended, images):
    assert float((student.logits(images.test.x).argmax(1) == images.test.y).float().mean()) > 0.9
    assert TEMPERATURE / 3 < _lead(student, images.test) / _lead(undefended, images.test) < TEMPERATURE * 3


def _blind(model, part):
    """The share of rows whose cross-entropy has a gradient of exactly zero."""

    def loss(logits):
        return functional.cross_entropy(logits, part.y, reduction="none")

    return float((model.grad(loss, part.x) == 0).flatten(1).all(1).float().mean())


def test_cross_entropy_is_blind_and_pgd_is_not(student, undefended, images, image_threat):
    assert _blind(undefended, images.test) < 0.1
    assert _blind(student, images.test) > 0.5
    threat, test = image_threat("linf", 12.0), images.test
    found = make_attack("pgd")(student, test.x, test.y, threat, rng=torch.Generator().manual_seed(0))
    assert bool(threat.contains(found, test.x).all())
    assert float((student.logits(found).argmax(1) != test.y).float().mean()) > 0.9


def test_the_argument_is_unchanged_and_both_trainings_count(student, images):
    before = digest(images.model.net.state_dict())
    data = replace(images.data, recipe=replace(images.data.recipe, epochs=1))
    made = make_defense("distillation")(images.model, data, rng=torch.Generator().manual_seed(0))
    assert digest(images.model.net.state_dict()) == before
    assert images.data.train.y.dtype == torch.int64
    # Teacher and student begin at new weights: nothing of the base model's training is in them.
    assert len(json.loads(made.provenance["costs"])) == 2
    assert student.net is not None
    assert not torch.equal(student.logits(images.test.x), images.model.logits(images.test.x))


def test_a_model_without_network_is_incompatible(images):
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense("distillation")(Model(name="remote", logits=lambda x: x), images.data, rng=torch.Generator())
