"""Sanitizers that are trained: what they take out, what they draw, what they cost, and who gets a gradient."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.training.diffusion import Diffusion, time_of

SMALL = {"name": "diffusion-purification", "width": 8, "epochs": 2}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _eye():
    return Model(name="eye", logits=lambda x: x.flatten(1))


def _known(noise, low=0.0, high=255.0):
    """A diffusion model that knows the noise, on a schedule that falls straight."""
    kept = torch.linspace(1.0, 0.0, 1000).clamp(1e-3, 1 - 1e-3)
    return Diffusion(estimate=lambda x, times: noise, kept=kept, low=low, high=high, weights="", costs="")  # noqa: ARG005


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("start", [10, 300, 800])
def test_who_knows_the_noise_takes_out_all_of_it(steps, start):
    x, noise = 255 * torch.rand((3, 1, 8, 8), generator=_rng()), torch.randn((3, 1, 8, 8), generator=_rng(1))
    torch.testing.assert_close(_known(noise).purified(x, noise, start=start, steps=steps), x, rtol=1e-3, atol=0.05)


@pytest.fixture(scope="module")
def purified(images):
    spec = {**SMALL, "epochs": 12, "noise": 0.2}
    data = replace(images.data, recipe=replace(images.data.recipe, learning_rate=1e-2))
    return make_defense(spec)(_eye(), data, rng=_rng())


def test_it_takes_out_noise(purified, images):
    """The toy images differ by independent noise, which no model can know; but their grey is known."""
    scaled = images.test.x + 40 * torch.randn(images.test.x.shape, generator=_rng(3))
    with torch.no_grad():
        cleaned = purified.draw(_rng(1))(scaled).view_as(scaled)
    assert float((cleaned - images.test.x).square().mean()) < float((scaled - images.test.x).square().mean())


def test_it_declares_its_draws(purified, images):
    x = images.test.x[:4]
    looks = [purified.draw(_rng(seed))(x) for seed in (0, 0, 1)]
    assert torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[0], looks[2])
    assert torch.equal(purified.logits(x), purified.logits(x))


def test_an_attacker_may_have_the_whole_gradient_or_the_identity(images):
    x = images.test.x[:2]
    full, identity = (
        make_defense({**SMALL, "gradient": kind})(_eye(), images.data, rng=_rng()) for kind in ("full", "identity")
    )
    values = [model.evaluate(lambda out: out.sum(1), x, rng=_rng(1)) for model in (full, identity)]
    torch.testing.assert_close(values[0].logits, values[1].logits, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(values[1].grad, torch.ones_like(x))
    assert not torch.allclose(values[0].grad, torch.ones_like(x))


def test_its_training_is_cached_counted_and_kept_apart_from_the_labels(images, tmp_path):
    data = replace(images.data, cache=tmp_path)
    models = [make_defense(SMALL)(images.model, data, rng=_rng()) for _ in range(2)]
    costs = [json.loads(model.provenance["costs"]) for model in models]
    assert [len(one) for one in costs] == [2, 2]
    assert [one[-1]["cached"] for one in costs] == [False, True]
    assert models[0].provenance["purifier"] == models[1].provenance["purifier"]
    flipped = replace(data, train=replace(data.train, y=1 - data.train.y))
    again = make_defense(SMALL)(images.model, flipped, rng=_rng())
    assert json.loads(again.provenance["costs"])[-1]["cached"]


@pytest.mark.parametrize("side", [7, 8, 13])
def test_any_side_works(side, images):
    x = 255 * torch.rand((6, 1, side, side + 2), generator=_rng())
    ids = tuple(map(str, range(6)))
    part = replace(images.data.train, x=x, y=torch.zeros(6, dtype=torch.int64), ids=ids, patients=ids, groups={})
    data = replace(images.data, train=part, validation=part)
    model = make_defense({**SMALL, "epochs": 1})(_eye(), data, rng=_rng())
    assert model.logits(x).shape == (6, side * (side + 2))


def test_what_it_cannot_do_is_told_in_one_line(tables):
    with pytest.raises(Incompatible, match=r"a diffusion model takes 2-D images, not rows of shape \(6,\)"):
        make_defense(SMALL)(tables.model, tables.data, rng=_rng())
    with pytest.raises(SpecError, match="width = 9 is not allowed"):
        make_defense({**SMALL, "width": 9})
    assert (time_of(1e-9), time_of(0.1), time_of(0.99999)) == (1, 100, 999)


def test_a_missing_extra_names_the_command(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.schedulers", None)
    with pytest.raises(SpecError, match=r"pip install 'titer\[imaging\]'"):
        make_defense(SMALL)(images.model, images.data, rng=_rng())


def test_an_autoencoder_cleans_and_is_attacked_through(images):
    data = replace(images.data, recipe=replace(images.data.recipe, learning_rate=1e-2))
    model = make_defense({"name": "denoising-autoencoder", "epochs": 10})(_eye(), data, rng=_rng())
    noisy = images.test.x + 40 * torch.randn(images.test.x.shape, generator=_rng(3))
    with torch.no_grad():
        cleaned = model.logits(noisy).view_as(noisy)
    assert float((cleaned - images.test.x).square().mean()) < float((noisy - images.test.x).square().mean())
    assert model.surrogate is None
    assert model.draw is None
    grad = model.grad(lambda out: out[:, 27], noisy[:2])
    assert int((grad != 0).sum()) > 10, "its window is seen by the gradient: more than the one pixel"


def test_an_autoencoder_cleans_tables(tables):
    model = make_defense({"name": "denoising-autoencoder", "epochs": 3})(tables.model, tables.data, rng=_rng())
    assert len(json.loads(model.provenance["costs"])) == 2
    assert model.logits(tables.test.x).shape == (len(tables.test), 2)
