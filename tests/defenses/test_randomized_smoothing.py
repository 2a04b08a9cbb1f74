"""Randomised smoothing: trained under its noise, attacked over its draws, certified by its base."""

from dataclasses import replace

import pytest
import torch

from titer.assess.judge import attack_rows
from titer.core.errors import Incompatible
from titer.core.plugins import make_attack, make_certifier, make_defense
from titer.engine.smoothing import Contrast, Smoothed, noised

SPEC = {"name": "randomized-smoothing", "sigma": 40.0, "unit": "grey level", "epochs": 6, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def smoothed(images):
    return make_defense(SPEC)(images.model, images.data, rng=torch.Generator().manual_seed(0))


def _accuracy(logits, part):
    return float((logits(part.x).argmax(1) == part.y).float().mean())


def test_it_reads_noisy_images_better_than_the_undefended_network(smoothed, images):
    noisy = replace(images.test, x=noised(images.test.x, torch.tensor(40.0), torch.Generator().manual_seed(1)))
    assert _accuracy(smoothed.draw.base, noisy) > _accuracy(images.model.logits, noisy)
    assert _accuracy(smoothed.logits, images.test) > 0.9


def test_it_is_certified_further_than_the_undefended_network(smoothed, images, image_threat):
    certify = make_certifier({"name": "smoothing", "sigma": 40.0, "draws": 200, "selection": 20})
    reached = []
    for model in (images.model, smoothed):
        found = certify(model, images.test.x[:40], image_threat("l2", 200.0), rng=torch.Generator().manual_seed(0))
        right = found.prediction == images.test.y[:40]
        reached.append(float((found.radius * right).mean()))
    assert reached[1] > reached[0] * 1.02


def test_draws_differ_and_answers_repeat(smoothed, images):
    x = images.test.x[:5]
    assert torch.equal(smoothed.logits(x), smoothed.logits(x))
    first, second = (smoothed.draw(torch.Generator().manual_seed(seed))(x) for seed in (1, 2))
    assert not torch.equal(first, second)
    assert torch.allclose(first.exp().sum(1), torch.ones(5), atol=1e-4)


def test_a_majority_counts_votes_and_lends_the_means_gradient(smoothed, images):
    x = images.test.x[:8]
    votes, means = (replace(smoothed, draw=replace(smoothed.draw, vote=vote, draws=5)) for vote in ("majority", "mean"))
    shares = votes.draw(torch.Generator().manual_seed(0))(x).exp() * 5
    assert torch.allclose(shares, shares.round(), atol=1e-3)
    grads = [model.grad(lambda out: out[:, 0], x, rng=torch.Generator().manual_seed(0)) for model in (votes, means)]
    assert bool((grads[0] != 0).flatten(1).any(1).all())
    aligned = torch.nn.functional.cosine_similarity(*(grad.flatten(1) for grad in grads))
    assert bool((aligned > 0.99).all())


def test_it_falls_to_an_attack_over_its_draws(smoothed, images, image_threat):
    x, y, threat = images.test.x[:60], images.test.y[:60], image_threat("linf", 16.0)
    attacked = attack_rows(make_attack({"name": "pgd", "steps": 10}), smoothed, x, y, threat)
    random = threat.project(x + 16.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign(), x)
    assert float((smoothed.logits(random).argmax(1) == y).float().mean()) > 0.85
    assert attacked.robust_accuracy < 0.6, "noise is no proof against Linf, and its gradient no riddle"


def test_noise_per_image_follows_its_contrast(images):
    model = make_defense(SPEC | {"per_image": True, "epochs": 1})(
        images.model, images.data, rng=torch.Generator().manual_seed(0)
    )
    assert isinstance(model.draw, Smoothed)
    x = images.test.x[:2] * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    spread = model.draw.spread(x).flatten()
    assert float(spread[1]) == pytest.approx(20.0)
    assert 20.0 < float(spread[0]) <= 80.0
    assert Contrast(usual=1.0)(100 * torch.rand(3, 4)).tolist() == [2.0] * 3


def test_it_must_come_before_what_wraps_and_names_a_unit(smoothed, images):
    with pytest.raises(Incompatible, match="no network to train"):
        make_defense(SPEC)(smoothed, images.data, rng=torch.Generator())
    with pytest.raises(Incompatible, match="unit 'mV' is not one of this data set's: grey level"):
        make_defense(SPEC | {"unit": "mV"})(images.model, images.data, rng=torch.Generator())
    with pytest.raises(Incompatible, match="not value"):
        make_defense(SPEC)(images.model, replace(images.data, output="value"), rng=torch.Generator())
