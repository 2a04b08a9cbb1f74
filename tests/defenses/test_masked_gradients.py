"""A defence that only hides gradients, or only cleans, falls to the attacker who adapts."""

import pytest
import torch
from torch.nn import functional

from titer.assess.judge import attack_rows
from titer.core.plugins import make_attack, make_defense

EPS = 10.0
WORST = {"name": "worst-case", "steps": 40, "queries": 100, "rivals": 0}
FEW = 0.08
MASKS = {
    "steep logits": "gradient-masking",
    "staircase": {"name": "gradient-masking", "form": "input"},
    "bits": {"name": "feature-squeezing", "bits": 4, "window": 1},
    "features": {"name": "feature-masking", "keep": 0.3},
    "activations": {"name": "randomized-activations", "samples": 2.0},
    "staircase behind jpeg": ["jpeg", {"name": "gradient-masking", "form": "input"}],
    "random behind squeezing": [{"name": "randomized-activations", "samples": 2.0}, "feature-squeezing"],
}


def _defended(spec, model, data):
    for one in spec if isinstance(spec, list) else [spec]:
        model = make_defense(one)(model, data, rng=torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="module")
def undefended(images, image_threat):
    return _robust(images.model, images.test, image_threat("linf", EPS))


def _robust(model, test, threat):
    return attack_rows(make_attack(WORST), model, test.x, test.y, threat).robust_accuracy


@pytest.mark.parametrize("name", MASKS)
def test_it_falls_to_the_worst_case(name, images, image_threat, undefended):
    model = _defended(MASKS[name], images.model, images.data)
    assert undefended < 0.15
    assert _robust(model, images.test, image_threat("linf", EPS)) <= undefended + FEW


@pytest.mark.parametrize("form", ["logits", "input"])
def test_an_attacker_who_does_not_adapt_is_blind(form, images):
    """What the masks are for: without Titer's loss, or without the surrogate, there is no gradient to follow."""
    model = make_defense({"name": "gradient-masking", "form": form})(images.model, images.data, rng=torch.Generator())
    x, y = images.test.x, images.test.y
    rows = x.clone().requires_grad_()
    loss = functional.cross_entropy(model.logits(rows), y, reduction="sum")
    grad = torch.autograd.grad(loss, rows)[0].flatten(1)
    lost = (grad == 0).all(1) if form == "logits" else (grad.abs() < 1e-20).float().mean(1) > 0.8
    assert float(lost.float().mean()) > 0.8
