"""Cross-check against foolbox, an independent implementation, on a trained network."""

import warnings

import pytest
import torch
from torch import nn

from titer.assess.judge import predict
from titer.core.plugins import make_attack
from titer.threats.balls import size

EPS = 6.0


class _FromUnit(nn.Module):
    """The toy network for inputs in [0, 1], as foolbox wants them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.logits(255 * x)


@pytest.fixture
def right_rows(images):
    x, y = images.test.x, images.test.y
    right = images.model.logits(x).argmax(1) == y
    assert int(right.sum()) >= 90
    return x[right], y[right]


def _foolbox(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox
    return foolbox, foolbox.PyTorchModel(_FromUnit(images.model).eval(), bounds=(0, 1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "LinfPGD", EPS), ("l2", "L2PGD", 45.0)])
def test_pgd_leaves_the_same_robust_accuracy(norm, name, eps, images, image_threat, right_rows):
    foolbox, wrapped = _foolbox(images)
    x, y = right_rows
    torch.manual_seed(0)
    attack = getattr(foolbox.attacks, name)(steps=40, rel_stepsize=0.1)
    theirs = int((~attack(wrapped, x / 255, y, epsilons=eps / 255)[2]).sum())
    threat = image_threat(norm, eps)
    found = make_attack("pgd")(images.model, x, y, threat, rng=torch.Generator().manual_seed(0))
    assert bool(threat.contains(found, x).all())
    ours = int((predict(images.model, found, rng=torch.Generator()).classes == y).sum())
    assert 10 < ours < len(y) - 10
    assert abs(ours - theirs) <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfDeepFoolAttack"), ("l2", "L2DeepFoolAttack")])
def test_deepfool_walks_as_far(norm, name, images, image_threat, right_rows):
    foolbox, wrapped = _foolbox(images)
    x, y = right_rows
    attack = getattr(foolbox.attacks, name)(steps=50, overshoot=0.02)
    raw = 255 * attack(wrapped, x / 255, y, epsilons=None)[1].detach()
    found = make_attack("deepfool")(images.model, x, y, image_threat(norm, 1.0), rng=torch.Generator())
    ours, theirs = (float(size(norm, rows, x, torch.tensor(1.0)).median()) for rows in (found, raw))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert bool((images.model.logits(found).argmax(1) != y).all())
