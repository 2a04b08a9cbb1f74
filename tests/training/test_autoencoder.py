"""The denoising autoencoder: form, gradients, cache, and that it takes noise away rather than the data."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible
from titer.training.autoencoder import Architecture, _Image, _scale, denoising_autoencoder

SMALL = Architecture(width=8)


def _data(toy, cache=None):
    return replace(toy.data, recipe=replace(toy.data.recipe, learning_rate=1e-2), cache=cache)


@pytest.fixture(scope="module")
def trained(images):
    return denoising_autoencoder(_data(images), seed=0, architecture=SMALL, epochs=15)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7), (2, 13), (1, 5, 6, 7), (1, 4, 4)])
def test_every_shape_comes_back_in_its_form(shape):
    x = torch.rand(2, *shape)
    assert _Image(shape[0], len(shape) - 1, 4)(x).shape == x.shape


def test_it_takes_noise_away(tables):
    """On a table whose last features follow from the first, noise is told from data."""
    model = denoising_autoencoder(_data(tables), seed=0, architecture=SMALL, epochs=15)
    x = tables.test.x
    spread = _scale(tables.data.train.x)[1]
    noisy = x + 0.5 * spread * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    before = ((noisy - x) / spread).square().mean()
    assert float(((model.logits(noisy) - x) / spread).square().mean()) < float(before)


def test_clean_images_are_kept_better_than_their_mean(trained, images):
    x = images.test.x
    error = (trained.logits(x) - x).square().mean()
    assert float(error) < 0.5 * float((x - x.mean()).square().mean())
    assert float(trained.logits(x).min()) >= 0.0
    assert float(trained.logits(x).max()) <= 255.0


def test_a_gradient_flows_and_the_weights_have_none(trained, images):
    x = images.test.x[:2].clone().requires_grad_()
    assert bool((torch.autograd.grad(trained.logits(x).sum(), x)[0] != 0).any())
    assert not any(weight.requires_grad for weight in trained.net.parameters())


def test_the_cache_gives_the_same_weights_whatever_the_labels(images, tmp_path):
    data = _data(images, tmp_path)
    first = denoising_autoencoder(data, seed=3, architecture=SMALL, epochs=1)
    relabelled = replace(data, train=replace(data.train, y=1 - data.train.y))
    again = denoising_autoencoder(relabelled, seed=3, architecture=SMALL, epochs=1)
    assert first.provenance["weights"] == again.provenance["weights"]
    assert '"cached": true' in again.provenance["costs"]
    other = denoising_autoencoder(data, seed=4, architecture=SMALL, epochs=1)
    assert other.provenance["weights"] != first.provenance["weights"]


def test_one_row_is_too_few(images):
    data = _data(images)
    with pytest.raises(Incompatible, match="two training rows"):
        denoising_autoencoder(replace(data, train=data.train.take([0])), seed=0)
