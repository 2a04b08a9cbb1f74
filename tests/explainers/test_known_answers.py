"""Explainers where the answer is known, and against their library; measures of saliency shift."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.plugins import make_explainer
from titer.engine.explaining import pieces
from titer.engine.saliency import cosine, overlay, share_inside, top_overlap

WEIGHTS = torch.tensor([[1.0, -2.0, 0.5, 0.0], [3.0, 1.0, -1.0, 2.0]])


def _explain(spec, model, x, target):
    return make_explainer(spec)(model, x, target, rng=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "integrated-gradients", "steps": 4, "baseline": 0.5},
        {"name": "shap", "method": "gradient", "baseline": 0.5},
        {"name": "shap", "method": "kernel", "baseline": 0.5, "samples": 200},
        {"name": "lime", "baseline": 0.5, "samples": 400, "sparsity": 0.0001},
    ],
    ids=["integrated-gradients", "gradient-shap", "kernel-shap", "lime"],
)
def test_on_a_linear_model_it_is_the_weight_times_the_change(linear_model, spec):
    x, target = torch.tensor([[1.0, 2.0, -1.0, 3.0], [0.5, 0.0, 4.0, 1.0]]), torch.tensor([0, 1])
    found = _explain(spec, linear_model(WEIGHTS), x, target)
    exact = WEIGHTS[target] * (x - 0.5)
    assert torch.allclose(found, exact, atol=0.05 if spec["name"] == "lime" else 1e-3)


def test_integrated_gradients_add_up_to_the_change_of_the_score(conv_images):
    x, y = conv_images.test.x[:5], conv_images.test.y[:5]
    found = _explain({"name": "integrated-gradients", "steps": 200}, conv_images.model, x, y)
    scores, at_zero = conv_images.model.logits(x), conv_images.model.logits(torch.zeros_like(x))
    change = (scores - at_zero).gather(1, y.unsqueeze(1)).squeeze(1)
    assert torch.allclose(found.flatten(1).sum(1), change, rtol=0.03, atol=0.1)


def test_gradcam_is_captums(conv_images):
    from captum.attr import LayerAttribution, LayerGradCam

    x, y, net = conv_images.test.x[:6], conv_images.test.y[:6], conv_images.model.net
    other = LayerGradCam(conv_images.model.logits, net[2]).attribute(x.clone(), target=y, relu_attributions=True)
    wide = LayerAttribution.interpolate(other.detach(), (8, 8), interpolate_mode="bilinear")
    assert torch.allclose(_explain("gradcam", conv_images.model, x, y), wide, rtol=1e-4, atol=1e-5)
    first = _explain({"name": "gradcam", "layer": "0"}, conv_images.model, x, y)
    assert not torch.allclose(first, wide)


def test_gradcam_looks_where_the_evidence_is():
    """A network that sums its convolution's maps over the left half speaks from the left half."""
    from titer.core.model import network_model

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x):
            mass = torch.relu(self.conv(x))
            return torch.stack([mass.flatten(1).sum(1), -mass.flatten(1).sum(1)], dim=1)

    x = torch.zeros(1, 1, 8, 8)
    x[..., :4] = 1.0
    found = _explain("gradcam", network_model("left", Left(), lambda rows: rows, {}), x, torch.tensor([0]))
    left = torch.zeros(1, 8, 8, dtype=torch.bool)
    left[..., :4] = True
    assert float(share_inside(found, left)) == pytest.approx(1.0)


def test_what_cannot_be_explained_names_its_reason(images, conv_images):
    x, y = images.test.x[:2], images.test.y[:2]
    with pytest.raises(Incompatible, match="no convolution"):
        _explain("gradcam", images.model, x, y)
    with pytest.raises(Incompatible, match="layer = 'nine' is no convolution of toy: allowed are 0, 2"):
        _explain({"name": "gradcam", "layer": "nine"}, conv_images.model, x, y)
    hard = replace(images.model, logits=lambda rows: images.model.logits(rows.detach()))
    with pytest.raises(Incompatible, match="integrated-gradients needs gradients, and toy gives none"):
        _explain("integrated-gradients", hard, x, y)


def test_pieces_cover_an_image_in_cells():
    found = pieces(torch.zeros(1, 3, 9, 7), 3)
    assert found.shape == (1, 3, 9, 7)
    assert found.unique().tolist() == list(range(9))
    assert bool((found[:, 0] == found[:, 2]).all())
    assert pieces(torch.zeros(2, 5), 3).tolist() == [[0, 1, 2, 3, 4]]


def test_measures_of_shift_at_their_ends():
    a = torch.zeros(1, 1, 10, 10)
    a[..., 0, :] = torch.arange(10.0) + 1
    b = a.flip(2)
    assert float(cosine(a, a)) == pytest.approx(1.0)
    assert float(cosine(a, 5 * a)) == pytest.approx(1.0)
    assert float(cosine(a, -a)) == pytest.approx(-1.0)
    assert float(cosine(a, b)) == pytest.approx(0.0, abs=1e-6)
    assert float(cosine(0 * a, 0 * a)) == pytest.approx(1.0)
    assert float(top_overlap(a, -a)) == 1.0
    assert float(top_overlap(a, b)) == 0.0
    row = torch.zeros(1, 10, 10, dtype=torch.bool)
    row[:, 0, :5] = True
    assert float(share_inside(a, row)) == pytest.approx(15 / 55)
    assert float(share_inside(0 * a, row)) == 0.0


def test_measures_refuse_what_does_not_fit():
    a = torch.rand(2, 1, 4, 4)
    with pytest.raises(Incompatible, match="cannot be compared"):
        cosine(a, a[:1])
    with pytest.raises(Incompatible, match="share = 0"):
        top_overlap(a, a, 0.0)
    with pytest.raises(Incompatible, match="do not fit"):
        share_inside(a, torch.zeros(2, 3, 4, dtype=torch.bool))
    with pytest.raises(Incompatible, match="an overlay takes an image"):
        overlay(torch.rand(4), torch.rand(4), (0.0, 1.0))


def test_an_overlay_is_red_for_and_blue_against():
    image, heat = torch.full((1, 2, 2), 100.0), torch.tensor([[[1.0, -1.0], [0.0, 0.5]]])
    shown = overlay(image, heat, (0.0, 200.0))
    assert shown.shape == (2, 2, 3)
    assert shown.dtype == torch.uint8
    assert shown[0, 0, 0] > shown[0, 0, 2]
    assert shown[0, 1, 2] > shown[0, 1, 0]
    assert shown[1, 0].tolist() == [128, 128, 128]
