"""Networks for images and volumes: shapes, what they refuse, and gradients through hand-made features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.plugins import make
from titer.networks import _dermoscopy, _gradients
from titer.networks._colour import lab
from titer.networks._lesion import frame, places


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"name": "resnet50", "width": 4}, (3, 64, 64)),
        ({"name": "resnet50", "width": 4}, (1, 28, 28)),
        ({"name": "densenet121", "growth": 4}, (1, 32, 32)),
        ({"name": "densenet121", "growth": 4}, (1, 28, 28)),
        ({"name": "densenet121", "growth": 4}, (1, 16, 16, 40)),
        ({"name": "efficientnet-b0"}, (3, 33, 33)),
        ({"name": "resnet3d", "width": 2}, (1, 4, 32, 32)),
        ({"name": "dermoscopy"}, (3, 16, 20)),
        ({"name": "gradient-histograms"}, (1, 24, 30)),
    ],
)
def test_one_logit_a_class(spec: dict[str, object], shape: tuple[int, ...]) -> None:
    net = make("networks", spec)(shape, 3).eval()
    assert net(torch.rand(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("densenet121", (1, 12, 28)), ("efficientnet-b0", (3, 28, 28)), ("resnet3d", (1, 32, 32)),
        ("dermoscopy", (1, 48, 48)), ("gradient-histograms", (3, 48, 48)), ("gradient-histograms", (1, 8, 8)),
    ],
)  # fmt: skip
def test_shapes_that_a_network_cannot_take_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=f"network '{name}' takes no rows of shape"):
        make("networks", name)(shape, 2)


def mole(side: int = 32) -> Tensor:
    """Two pictures: a brown disc on skin, and plain skin."""
    skin = torch.tensor([0.8, 0.6, 0.5]).view(1, 3, 1, 1).expand(2, 3, side, side).clone()
    disc = frame(skin).radius < 0.4
    skin[0, :, disc] = torch.tensor([0.35, 0.2, 0.15]).view(3, 1)
    return skin


def test_lab_of_known_colours() -> None:
    # White, black, and sRGB red: L* 53.2, a* 80.1, b* 67.2 (CIE 1976, D65).
    known = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]).view(3, 3, 1, 1)
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0.532, 0.801, 0.672]])
    assert torch.allclose(lab(known).view(3, 3), expected, atol=5e-3)


def test_the_lesion_is_where_it_is_dark() -> None:
    x = mole()
    at = frame(x)
    lesion = places(x, at).lesion[0, 0]
    assert float(lesion[at.radius < 0.3].min()) > 0.8
    assert float(lesion[at.radius > 0.6].max()) < 0.2


@pytest.mark.parametrize(
    ("features", "channels"), [(_dermoscopy.features, 3), (_gradients.features, 1)], ids=["dermoscopy", "gradients"]
)
def test_features_have_a_finite_gradient_everywhere(features: object, channels: int) -> None:
    assert callable(features)
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand((2, channels, 24, 24), generator=rng)
    for x in (noise, torch.zeros_like(noise), torch.ones_like(noise), mole(24)[:, :channels]):
        x = x.clone().requires_grad_()
        values = features(x)
        assert bool(values.isfinite().all())
        gradient = torch.autograd.grad(values.sum(), x)[0]
        assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0


def test_features_agree_with_finite_differences() -> None:
    x = mole(16).double()[:1] + 0.05 * torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(1)).double()
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-6
    x.requires_grad_()
    slope = torch.autograd.grad(_dermoscopy.features(x).sum(), x)[0].mul(way).sum()
    with torch.no_grad():
        ahead, behind = (_dermoscopy.features(x + sign * step * way).sum() for sign in (1, -1))
    assert float((ahead - behind) / (2 * step)) == pytest.approx(float(slope), rel=1e-3)


def test_a_lesion_on_one_side_is_uneven_whichever_side_it_is_on() -> None:
    even = torch.full((1, 1, 24, 24), 0.4)
    lesion = even.clone()
    lesion[..., 6:12, 3:8] = 0.9
    plain, left, right = (torch.cat([one.flatten(1) for one in _gradients._asymmetry(x)], 1)
                          for x in (even, lesion, lesion.flip(3)))  # fmt: skip
    assert float(plain.max() - plain.min()) < 1e-6
    assert float(left.max()) > 10 * float(plain.max())
    assert torch.allclose(left, right, atol=1e-6)
