from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.training.loop import fit
from titer.training.one_class import best_threshold, own_objective

SIDE = 12


def images(count: int, seed: int) -> Samples:
    """Normal images are smooth waves in one of a few directions; anomalies have noise on them."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    place = torch.linspace(0, 3.14, SIDE)
    phase = torch.rand((count, 1, 1), generator=rng) * 3
    wave = (place.view(1, SIDE, 1) + place.view(1, 1, SIDE) + phase).sin()
    noise = torch.randn((count, SIDE, SIDE), generator=rng) * y.view(-1, 1, 1) * 0.4
    ids = tuple(f"i{i}" for i in range(count))
    return Samples(x=(0.5 + 0.3 * wave + noise).unsqueeze(1), y=y, ids=ids, patients=ids)


def data(cache: Path | None = None) -> TrainingData:
    recipe = Recipe(epochs=12, batch_size=32, learning_rate=5e-3)
    return TrainingData(
        train=images(200, 1), validation=images(80, 2), classes=2, domain=(), units={}, recipe=recipe, cache=cache
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = make("networks", {"name": "anomaly-autoencoder", "code": 4, "width": 8})((1, SIDE, SIDE), 2)
    return made


def test_anomalies_are_told_though_training_never_saw_them(tmp_path: Path) -> None:
    start = network_model("a", network(), lambda x: x, {})
    assert start.net is not None
    given = data(tmp_path)
    objective = own_objective(start.net, given)
    assert objective is not None
    model = fit(start, start.net, given, objective, seed=0)
    test = images(100, 3)
    found = model.logits(test.x).argmax(1)
    assert float((found == test.y).float().mean()) > 0.9
    again = fit(start, start.net, given, objective, seed=0)
    assert torch.equal(model.logits(test.x), again.logits(test.x))


def test_the_anomalies_of_the_training_part_change_nothing() -> None:
    start = network_model("a", network(), lambda x: x, {})
    assert start.net is not None
    given = data()
    objective = own_objective(start.net, given)
    assert objective is not None
    other = given.train.x.clone()
    other[given.train.y == 1] = 0.123
    changed = replace(given, train=replace(given.train, x=other))
    one, two = (fit(start, start.net, some, objective, seed=0) for some in (given, changed))
    test = images(20, 3)
    assert torch.equal(one.logits(test.x), two.logits(test.x))


def test_the_threshold_is_that_of_the_best_balanced_accuracy() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert best_threshold(scores, torch.tensor([0, 0, 0, 1, 1, 1])) == 2.5
    assert best_threshold(scores, torch.tensor([0, 1, 0, 0, 1, 1])) == 3.5


def test_a_gradient_reaches_the_image() -> None:
    net, x = network().eval(), images(4, 1).x.requires_grad_()
    (grad,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    assert bool((grad != 0).flatten(1).any(1).all())


def test_other_networks_have_no_objective_of_their_own_and_three_classes_are_refused() -> None:
    assert own_objective(nn.Linear(2, 2), data()) is None
    with pytest.raises(Incompatible, match="one class is learned of two"):
        own_objective(network(), replace(data(), classes=3))
