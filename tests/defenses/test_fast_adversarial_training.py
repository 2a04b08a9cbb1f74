"""Fast adversarial training: its step is the paper's, it buys robustness, and its guard sees a collapse."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model, network_model
from titer.core.plugins import make_attack, make_defense
from titer.core.record import Recipe
from titer.defenses.fast_adversarial_training import NoisyStep
from titer.threats.goals import HighestLoss
from titer.training.objectives import Penalty
from titer.training.worst_case import WorstCase

PLAIN = {"name": "fast-adversarial-training", "eps": 10.0, "unit": "grey level", "epochs": 12}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _step(threat, noise, step=1.0):
    guard = WorstCase(inner=None, spec="", threat=threat, penalty=Penalty())
    return NoisyStep(guard=guard, noise=noise, step=step)


def test_without_noise_its_step_is_fgsm(linear_model, free_threat):
    weights = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    model, x = linear_model(weights), torch.tensor([[3.0, 1.0]])
    found = _step(free_threat("linf", 0.5, goal=HighestLoss()), 0.0)._stepped(
        model.logits, x, torch.tensor([0]), _rng()
    )
    torch.testing.assert_close(found, torch.tensor([[2.5, 1.5]]))


def test_with_noise_it_steps_from_there_and_is_not_clipped(linear_model, free_threat):
    model, x = linear_model(torch.tensor([[1.0, -2.0], [0.0, 0.0]])), torch.zeros(4000, 2)
    threat = free_threat("linf", 0.5, goal=HighestLoss())
    found = _step(threat, 2.0)._stepped(model.logits, x, torch.zeros(4000, dtype=torch.int64), _rng())
    noise = found - torch.tensor([-0.5, 0.5])
    assert float(noise.abs().max()) <= 1.0 + 1e-6
    assert float(noise.abs().max()) > 0.99
    assert float(noise.mean().abs()) < 0.03


def test_the_rules_of_the_domain_hold(images, image_threat):
    threat = replace(image_threat("linf", 60.0), goal=HighestLoss())
    found = _step(threat, 2.0)._stepped(images.model.logits, images.test.x, images.test.y, _rng())
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 255.0


def test_it_buys_robustness(images, fragile, image_threat, robust):
    data, test = fragile
    standard = make_defense({"name": "distillation", "temperature": 1.0})(images.model, data, rng=_rng())
    trained = make_defense({**PLAIN, "epochs": 15})(standard, data, rng=_rng())
    threat = image_threat("linf", 10.0)
    assert robust(trained, test, threat) > robust(standard, test, threat) + 0.25
    assert float((trained.logits(test.x).argmax(1) == test.y).float().mean()) > 0.85


def test_every_setting_is_part_of_the_cache_key(images):
    data = replace(images.data, train=images.data.train.take(range(64)))
    changes = [{}, {"eps": 3.0}, {"norm": "l2"}, {"noise": 1.0}, {"step": 1.25}, {"guard_steps": 0}, {"patience": 1}]
    models = [make_defense({**PLAIN, "epochs": 1, **own})(images.model, data, rng=_rng()) for own in changes]
    assert len({model.provenance["training"] for model in models}) == len(changes)


def test_it_costs_less_than_pgd_training(images):
    """Counted in passes: one gradient for the step, where seven steps of PGD take seven."""
    passes = []
    for spec in (PLAIN, {"name": "adversarial-training", "eps": 10.0, "unit": "grey level"}):
        counted = _Counted(images.model.net)
        model = Model(
            name="counted", logits=counted, net=counted, rebuild=lambda net: net, provenance=images.model.provenance
        )
        trained = make_defense({**spec, "epochs": 2})(model, images.data, rng=_rng())
        passes.append(int(trained.net.rows))
    assert passes[0] < passes[1] / 2.5


class _Counted(nn.Module):
    """Counts the rows that pass in a buffer that is trained with it: the copy that `fit` trains keeps its own."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("rows", torch.tensor(0))

    def forward(self, x):
        self.rows += len(x)
        return self.net((x - 128) / 30)


def test_what_it_cannot_do_is_told_in_one_line(images):
    with pytest.raises(Incompatible, match="unit 'sd' is not one of this data set's: grey level"):
        make_defense({**PLAIN, "unit": "sd"})(images.model, images.data, rng=_rng())
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense(PLAIN)(Model(name="remote", logits=lambda x: x), images.data, rng=_rng())
    for own in ({"noise": -1.0}, {"noise": float("inf")}, {"guard_steps": -1}):
        with pytest.raises(SpecError, match=f"{next(iter(own))} = .* is not allowed"):
            make_defense({**PLAIN, **own})


class _Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


@pytest.fixture(scope="module")
def bent(images):
    """A network of sines, which can bend within a budget of 4 grey levels and so hide from a single step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), _Sine(), nn.Linear(128, 128), _Sine(), nn.Linear(128, 2))
    model = network_model("bent", net, lambda x: (x - 128) / 8, {})
    return model, replace(images.data, recipe=Recipe(batch_size=64))


def test_the_guard_keeps_the_weights_from_before_a_collapse(bent, images, image_threat, robust):
    model, data = bent
    forced = {**PLAIN, "eps": 4.0, "noise": 0.0, "epochs": 30, "patience": 30, "learning_rate": 3e-2}
    blind, guarded = (
        make_defense({**forced, "guard_steps": steps, "warm_start": False})(model, data, rng=_rng()) for steps in (0, 8)
    )
    step = {"name": "fgsm"}
    threat, test = image_threat("linf", 4.0), images.test
    after_step = make_attack(step)(blind, test.x, test.y, threat, rng=_rng())
    # Blind to the collapse, the single step's own score keeps weights that fall to any longer attack.
    assert float((blind.logits(after_step).argmax(1) == test.y).float().mean()) > robust(blind, test, threat) + 0.3
    assert robust(guarded, test, threat) > robust(blind, test, threat) + 0.3


def test_training_ends_soon_after_a_collapse(bent):
    model, data = bent
    forced = {**PLAIN, "eps": 4.0, "noise": 0.0, "epochs": 30, "patience": 4, "learning_rate": 3e-2}
    made = make_defense({**forced, "warm_start": False})(model, data, rng=_rng())
    assert json.loads(made.provenance["costs"])[-1]["epochs"] < 20
