"""Feature squeezing: levels and medians as their definitions have them, on images and on tables."""

from dataclasses import replace

import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.defenses.feature_squeezing import median


def _eye(**fields):
    """A model whose logits are the raw values, so that they show what the model sees."""
    return Model(name="eye", logits=lambda x: x.flatten(1), **fields)


def _squeezed(data, x, **settings):
    model = make_defense({"name": "feature-squeezing", **settings})(_eye(), data, rng=torch.Generator())
    return model.logits(x).view_as(x), model


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (1, 1, 5, 6, 7), (4, 2, 11)])
def test_its_median_is_scipys(window, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    size = (1, 1, *[window] * (len(shape) - 2))
    expected = scipy.ndimage.median_filter(x.numpy(), size=size, mode="mirror")
    assert torch.equal(median(x, window), torch.from_numpy(expected))


@given(bits=st.integers(1, 8), seed=st.integers(0, 99))
def test_rounding_keeps_so_many_levels_and_rounds_what_is_rounded_to_itself(bits, seed, images):
    x = 255 * torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    once, _ = _squeezed(images.data, x, bits=bits, window=1)
    twice, _ = _squeezed(images.data, once, bits=bits, window=1)
    assert len(once.unique()) <= 2**bits
    assert float((once - x).abs().max()) <= 255 / (2**bits - 1) / 2 + 1e-3
    torch.testing.assert_close(once, twice)


def test_one_bit_is_black_and_white(images):
    x = torch.tensor([0.0, 127.0, 128.0, 255.0]).view(1, 1, 1, 4)
    squeezed, _ = _squeezed(images.data, x, bits=1, window=1)
    assert squeezed.flatten().tolist() == [0.0, 0.0, 255.0, 255.0]


def test_a_table_is_rounded_on_each_features_own_range_and_has_no_median(tables):
    data = replace(tables.data, train=replace(tables.data.train, x=tables.data.train.x.clone()))
    data.train.x[:, 2] = 7.0
    low, high = data.train.x.amin(0), data.train.x.amax(0)
    x = torch.stack([low, high, low + 0.3 * (high - low)])
    x[:, 2] = 7.25
    squeezed, _ = _squeezed(data, x, bits=1, window=3)
    expected = torch.stack([low, high, low])
    expected[:, 2] = 7.25
    torch.testing.assert_close(squeezed, expected)


def test_the_surrogate_has_the_squeezed_value_and_the_slope_of_the_windows_mean(images):
    x = 255 * torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    _, model = _squeezed(images.data, x)
    value, grad = model.evaluate(lambda out: out.sum(1), x)
    torch.testing.assert_close(value, model.logits(x))
    # 64 means: their slopes sum to 64 a row, and each value away from the edges is in nine of them.
    torch.testing.assert_close(grad.flatten(1).sum(1), torch.full((2,), 64.0))
    torch.testing.assert_close(grad[:, :, 3, 3], torch.ones(2, 1))
    rounded = x.clone().requires_grad_()
    assert float(torch.autograd.grad(model.logits(rounded).sum(), rounded)[0].abs().max()) == 0.0


def test_order_in_a_chain_is_respected(images):
    first = make_defense({"name": "feature-squeezing", "bits": 1, "window": 1})
    second = make_defense({"name": "jpeg", "quality": 5})
    x, rng = images.test.x[:8], torch.Generator()
    one = second(first(_eye(), images.data, rng=rng), images.data, rng=rng).logits(x)
    other = first(second(_eye(), images.data, rng=rng), images.data, rng=rng).logits(x)
    # What is applied last in the chain stands in front: the model behind sees what the first one lets through.
    assert set(one.unique().tolist()) <= {0.0, 255.0}
    assert not torch.equal(one, other)
    seen = second(_eye(), images.data, rng=rng).logits(first(_eye(), images.data, rng=rng).logits(x).view_as(x))
    torch.testing.assert_close(other, seen)


@pytest.mark.parametrize(
    ("own", "message"),
    [({"bits": 0}, "bits = 0 is not allowed"), ({"window": 4}, "window = 4 is not allowed: a window is odd")],
)
def test_wrong_settings_are_named(own, message):
    with pytest.raises(SpecError, match=message):
        make_defense({"name": "feature-squeezing", **own})


def test_a_window_wider_than_the_image_is_incompatible(images):
    with pytest.raises(Incompatible, match=r"window = 9 is wider than rows of shape \(1, 8, 8\)"):
        _squeezed(images.data, images.test.x, window=9)
