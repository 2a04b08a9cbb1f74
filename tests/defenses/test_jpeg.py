"""JPEG: the very round trip of Pillow, and a surrogate that an adaptive attacker can climb."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model, network_model
from titer.core.plugins import make_attack, make_defense
from titer.training.weights import digest


def _pillow(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _eye(features, access="gradient"):
    """A model whose logits are the raw values, so that they show what the model sees."""
    return Model(name="eye", logits=lambda x: x.flatten(1)[:, :features], access=access)


def _behind(model, data, shape, value_range=(0.0, 255.0), **settings):
    data = replace(data, train=replace(data.train, x=torch.zeros(1, *shape)), value_range=value_range)
    return make_defense({"name": "jpeg", **settings})(model, data, rng=torch.Generator())


@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_pillows_round_trip(channels, quality, images):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 16, 24, channels), dtype=np.uint8)
    expected = np.stack([_pillow(one.squeeze(), quality).reshape(one.shape) for one in pixels])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    model = _behind(_eye(x[0].numel()), images.data, x.shape[1:], quality=quality)
    seen = model.logits(x).view_as(x).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(seen, expected)
    assert (seen != pixels).any()


def test_fractions_of_a_grey_level_are_rounded(images):
    x = torch.full((1, 1, 8, 8), 99.6)
    assert _behind(_eye(64), images.data, (1, 8, 8), quality=95).logits(x).unique().tolist() == [100.0]


def test_another_value_range_is_scaled_to_bytes(images):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    expected = np.stack([_pillow(one, 75) for one in pixels]).astype(np.float32)
    for low, high in ((0.0, 65535.0), (-1.0, 1.0), (-1024.0, 3071.0)):
        x = torch.from_numpy(pixels).float().unsqueeze(1) * ((high - low) / 255) + low
        seen = _behind(_eye(256), images.data, (1, 16, 16), (low, high)).logits(x).view(2, 16, 16)
        back = (seen - low) * (255 / (high - low))
        np.testing.assert_allclose(back.numpy(), expected, atol=2e-3)


def test_the_backward_pass_sees_through_it(images):
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    inner = network_model("linear", net, lambda x: x / 255, {})
    model = _behind(inner, images.data, (1, 8, 8))
    x = 255 * torch.rand((3, 1, 8, 8), generator=rng)
    logits, grad = model.evaluate(lambda out: out[:, 0], x)
    torch.testing.assert_close(grad, (net[1].weight[0] / 255).view(1, 1, 8, 8).expand_as(x))
    torch.testing.assert_close(logits, model.logits(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, inner.logits(x))
    assert not model.logits(x.clone().requires_grad_()).requires_grad


def test_an_attack_that_adapts_breaks_it(images, image_threat):
    model = make_defense("jpeg")(images.model, images.data, rng=torch.Generator())
    threat, test = image_threat("linf", 20.0), images.test
    found = make_attack("pgd")(model, test.x, test.y, threat, rng=torch.Generator().manual_seed(0))
    assert float((model.logits(test.x).argmax(1) == test.y).float().mean()) > 0.8
    assert float((model.logits(found).argmax(1) == test.y).float().mean()) < 0.1


def test_behind_an_access_without_gradient_there_is_no_surrogate(images):
    model = _behind(_eye(64, access="scores"), images.data, (1, 8, 8))
    assert model.surrogate is None
    assert model.access == "scores"
    with pytest.raises(Incompatible):
        model.grad(lambda out: out[:, 0], torch.zeros(1, 1, 8, 8))


def test_an_inner_surrogate_and_draws_stand_behind_it(images):
    def draw(rng):
        noise = torch.randn(1, generator=rng)
        return lambda x: x.flatten(1) + noise

    inner = Model(name="noisy", logits=lambda x: x.flatten(1).round(), surrogate=lambda x: x.flatten(1), draw=draw)
    model = _behind(inner, images.data, (1, 8, 8), quality=5)
    x = 255 * torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    drawn = model.draw(torch.Generator().manual_seed(3))(x)
    shift = torch.randn(1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn - shift, model.logits(x), rtol=1e-4, atol=1e-3)
    grad = model.grad(lambda out: out.sum(1), x, rng=torch.Generator())
    torch.testing.assert_close(grad, torch.ones_like(x))


def test_no_rows_are_no_rows(images):
    assert _behind(_eye(64), images.data, (1, 8, 8)).logits(torch.zeros(0, 1, 8, 8)).shape == (0, 64)


@pytest.mark.parametrize("shape", [(6,), (2, 8, 8), (1, 8, 8, 8)])
def test_what_is_no_image_is_incompatible(shape, images):
    with pytest.raises(Incompatible, match="jpeg takes 2-D images of 1 or 3 channels, not rows of shape"):
        _behind(_eye(4), images.data, shape)


def test_images_without_a_range_are_incompatible(images):
    with pytest.raises(Incompatible, match="jpeg"):
        _behind(_eye(64), images.data, (1, 8, 8), None)


def test_it_stands_before_a_trained_defence(images):
    spec = {"name": "adversarial-training", "eps": 6.0, "unit": "grey level", "epochs": 1}
    trained = make_defense(spec)(images.model, images.data, rng=torch.Generator().manual_seed(0))
    before = digest(trained.net.state_dict())
    both = make_defense("jpeg")(trained, images.data, rng=torch.Generator())
    x = torch.from_numpy(np.stack([_pillow(one[0].numpy(), 75) for one in images.test.x.round().byte()])).float()
    torch.testing.assert_close(both.logits(images.test.x), trained.logits(x.unsqueeze(1)))
    assert digest(both.net.state_dict()) == before
    assert both.rebuild is None
    assert trained.surrogate is None


@pytest.mark.parametrize("quality", [0, 96, "high"])
def test_quality_has_limits(quality):
    with pytest.raises(SpecError, match=r"quality = .* is not allowed"):
        make_defense({"name": "jpeg", "quality": quality})


@pytest.mark.parametrize(("side", "count"), [(28, 700), (8, 3), (5, 2), (33, 40), (224, 300)])
def test_many_grey_images_at_once_come_out_as_one_by_one(side, count, images):
    """Exactly: 300 images of 224 rows are higher than the format allows for one."""
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand((count, 1, side, side), generator=rng).cumsum(2) * 40).clamp(0, 255).round()
    seen = _behind(_eye(side * side), images.data, (1, side, side), quality=40).logits(x).view(count, side, side)
    for row in (0, 1, count // 2, count - 1):
        alone = _pillow(x[row, 0].numpy().astype(np.uint8), 40)
        np.testing.assert_array_equal(seen[row].numpy(), alone)


def test_large_radiographs_are_not_stacked_into_what_passes_for_a_bomb(images):
    """Pillow warns from 89 million pixels on, and refuses twice as many: 25 images of 2,000 x 2,000 are 100 million."""
    one = torch.arange(2000.0).view(1, 1, 1, 2000).expand(25, 1, 2000, 2000) % 256
    seen = _behind(Model(name="mean", logits=lambda x: x.mean((2, 3))), images.data, (1, 2000, 2000)).logits(one)
    assert seen.shape == (25, 1)
    assert float((seen - seen[0]).abs().max()) == 0.0
