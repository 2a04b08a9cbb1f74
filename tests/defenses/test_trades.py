"""TRADES: its divergence is the textbook's, it buys robustness, and its weight says how much."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical, kl_divergence

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.defenses.trades import divergence

PLAIN = {"name": "trades", "eps": 10.0, "unit": "grey level", "epochs": 12}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 999), size=st.floats(0.01, 3))
def test_its_divergence_is_the_textbooks(seed, size):
    clean, other = (size * torch.randn((5, 3), generator=_rng(seed + i)) for i in (0, 1000))
    classes = kl_divergence(Categorical(logits=clean), Categorical(logits=other))
    torch.testing.assert_close(divergence("classes", clean, other), classes, rtol=1e-4, atol=1e-4)
    labels = kl_divergence(Bernoulli(logits=clean), Bernoulli(logits=other)).mean(1)
    torch.testing.assert_close(divergence("labels", clean, other), labels, rtol=1e-3, atol=1e-3)
    assert bool((divergence("classes", clean, other) >= -1e-5).all())
    torch.testing.assert_close(divergence("classes", clean, clean), torch.zeros(5), atol=1e-5, rtol=0)


def test_of_a_mask_it_is_the_mean_over_pixels_and_of_a_value_the_square():
    pixel, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    one = divergence("classes", pixel.view(1, 2), other.view(1, 2))
    masks = [values.view(1, 2, 1, 1).expand(3, 2, 4, 5) for values in (pixel, other)]
    torch.testing.assert_close(divergence("mask", *masks), one.expand(3))
    assert math.isclose(float(divergence("value", torch.tensor([[7.0]]), torch.tensor([[1.0]]), 3.0)), 4.0)


def test_it_buys_robustness(images, fragile, image_threat, robust):
    data, test = fragile
    standard = make_defense({"name": "distillation", "temperature": 1.0})(images.model, data, rng=_rng())
    trained = make_defense(PLAIN)(standard, data, rng=_rng())
    threat = image_threat("linf", 10.0)
    assert robust(trained, test, threat) > robust(standard, test, threat) + 0.25
    assert float((trained.logits(test.x).argmax(1) == test.y).float().mean()) > 0.85


def test_every_setting_is_part_of_the_cache_key(images):
    data = replace(images.data, train=images.data.train.take(range(64)))
    changes = [{}, {"eps": 3.0}, {"norm": "l2"}, {"attack": "fgsm"}, {"weight": 1.0}, {"warm_start": False}]
    models = [make_defense({**PLAIN, "epochs": 1, **own})(images.model, data, rng=_rng()) for own in changes]
    assert len({model.provenance["training"] for model in models}) == len(changes)


def test_what_it_cannot_do_is_told_in_one_line(images):
    with pytest.raises(Incompatible, match="unit 'sd' is not one of this data set's: grey level"):
        make_defense({**PLAIN, "unit": "sd"})(images.model, images.data, rng=_rng())
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense(PLAIN)(Model(name="remote", logits=lambda x: x), images.data, rng=_rng())
    with pytest.raises(SpecError, match=r"weight = 0\.0 is not allowed"):
        make_defense({**PLAIN, "weight": 0.0})
