"""The faster stand-in: the same answers, the exact network's last word, and nothing where nothing is gained."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.assess.judge import propose
from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.engine.fast import quick
from titer.engine.metering import Meter


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)))


@pytest.fixture
def normed():
    """A residual network whose batch norms have seen data."""
    torch.manual_seed(0)
    net = _Residual().train()
    for _ in range(20):
        net(torch.rand(32, 1, 8, 8) * 3)
    net.eval()
    with torch.no_grad():  # a boundary between the images, so that attacks have something to find
        lead = net(_images(60) / 255)
        net.head[2].bias[0] -= (lead[:, 0] - lead[:, 1]).median()
    return network_model("normed", net, lambda x: x / 255, {})


def _images(count=12):
    return torch.rand((count, 1, 8, 8), generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize(("precision", "agreement"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_it_answers_as_the_network_does(precision, agreement, normed):
    fast = quick(normed, _images(), precision)
    assert fast is not normed
    with torch.no_grad():
        torch.testing.assert_close(fast.logits(_images()), normed.logits(_images()), atol=agreement, rtol=agreement)
    assert fast.exact is normed.logits
    assert sum(isinstance(part, nn.BatchNorm2d) for part in normed.net.modules()) == 2, (
        "the network itself is untouched"
    )


def test_a_network_without_convolutions_is_left_alone(images):
    assert quick(images.model, images.test.x) is images.model


def test_a_network_without_batch_norm_is_laid_out_anew():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model = network_model("plain", net, lambda x: x / 255, {})
    fast = quick(model, _images())
    assert fast.exact is model.logits
    torch.testing.assert_close(fast.logits(_images()), model.logits(_images()), atol=1e-5, rtol=1e-5)
    assert net[0].weight.is_contiguous(), "the network itself is untouched"


def test_a_network_that_cannot_be_copied_is_left_alone():
    class Stubborn(nn.Conv2d):
        def __deepcopy__(self, memo):
            raise RuntimeError("only one of me")

    model = network_model("stubborn", nn.Sequential(Stubborn(1, 2, 8), nn.Flatten()), lambda x: x / 255, {})
    assert quick(model, _images()) is model


@pytest.mark.parametrize("access", ["gradient", "scores", "decision"])
@pytest.mark.parametrize("name", ["hopskipjump", "boundary"])
def test_decisions_are_asked_of_the_network_itself_within_the_budget(name, access, normed, image_threat):
    """Whatever the attacker may see: a stand-in's answers would have to be confirmed, at questions of their own."""
    x = _images(20)
    y, threat = normed.logits(x).argmax(1), replace(image_threat("l2", 1.0), access=access)
    attack, nothing = make_attack({"name": name, "queries": 200}), torch.zeros(len(x), dtype=torch.bool)
    found = propose(attack, normed, x, y, threat, nothing, minimal=True, rng=torch.Generator().manual_seed(0))
    assert 100 < float(found.forwards.max()) <= 200
    assert bool(threat.goal.won(normed.logits(found.x_adv), y).any())


def test_scores_come_from_the_stand_in(normed, image_threat):
    x, seen = _images(), []
    threat = replace(image_threat("linf", 1.0), access="scores")

    def attack(model, rows, *_args, **_rng):
        seen.append(model)
        return rows

    nothing = torch.zeros(len(x), dtype=torch.bool)
    propose(attack, normed, x, normed.logits(x).argmax(1), threat, nothing, minimal=False, rng=None)
    assert seen[0].exact is not None


def test_randomised_and_surrogate_models_are_left_alone(normed):
    for other in (
        replace(normed, draw=lambda _rng: normed.logits),
        replace(normed, surrogate=normed.logits),
        normed.limited("scores"),
        replace(normed, net=None),
    ):
        assert quick(other, _images()) is other


def test_a_stand_in_that_differs_is_not_used(normed):
    liar = replace(normed, rebuild=lambda net: lambda x: net(x / 255) + 1.0)
    assert quick(liar, _images()) is liar


def test_the_exact_network_has_the_last_word(normed, image_threat):
    """A stand-in that cries victory everywhere wins nothing, and its checks are paid for."""
    x = _images()
    y = normed.logits(x).argmax(1)
    eager = replace(normed, logits=lambda rows: -1e3 * normed.logits(rows), exact=normed.logits)
    meter, threat = Meter(len(x)), image_threat("linf", 1e-4)
    found = make_attack({"name": "pgd", "steps": 3})(meter.watch(eager), x, y, threat, rng=torch.Generator())
    assert not bool(threat.goal.won(normed.logits(found), y).any())
    assert meter.forwards.tolist() == [6.0] * len(x)


def test_the_attack_is_as_strong(normed, image_threat):
    x = _images(60)
    y = normed.logits(x).argmax(1)
    threat, won = image_threat("linf", 2.0), []
    for model in (normed, quick(normed, x), quick(normed, x, "bfloat16")):
        found = make_attack("pgd")(model, x, y, threat, rng=torch.Generator().manual_seed(0))
        won.append(int(threat.goal.won(normed.logits(found), y).sum()))
    assert 5 < won[0] < 60
    assert abs(won[1] - won[0]) <= 1
    assert abs(won[2] - won[0]) <= 3
