"""One pattern for all rows, learned on a part of them, and the best there is where that is known."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball, size
from titer.threats.goals import AnyError, Targeted
from titer.threats.rules import Box

NORMS = {"linf": 1, "l2": 2, "l1": float("inf")}
FEATURES = 20


def _run(model, x, y, threat, seed=0, **settings):
    attack = make_attack({"name": "universal", **settings})
    return attack(model, x, y, threat, rng=torch.Generator().manual_seed(seed))


def _linear(linear_model, rows=200):
    rng = torch.Generator().manual_seed(2)
    weights = torch.randn((2, FEATURES), generator=rng)
    model = linear_model(weights, torch.tensor([0.4, 0.0]))
    x = torch.randn((rows, FEATURES), generator=rng)
    return model, x, model.logits(x).argmax(1), weights


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_model_it_is_the_better_of_the_two_best_patterns(norm, linear_model, free_threat):
    model, x, y, weights = _linear(linear_model)
    lead = model.logits(x)[:, 1] - model.logits(x)[:, 0]
    reach = float(lead.abs().median())
    threat = free_threat(norm, reach / float(torch.linalg.vector_norm(weights[1] - weights[0], ord=NORMS[norm])))
    # A pattern moves every lead by the same amount, at most by `reach`: it wins the near rows of one side.
    best = max(int(((lead > 0) & (lead < reach)).sum()), int(((lead < 0) & (lead > -reach)).sum()))
    found = _run(model, x, y, threat, fit_share=1.0)
    assert int(threat.goal.won(model.logits(found), y).sum()) >= best - 2
    assert best > 30


def test_one_class_is_not_given_up_because_the_other_pulls_back(linear_model, free_threat):
    """Two classes of equal size: the plain sum of their gradients is 0, and so is a pattern that follows it."""
    model = linear_model(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    side = torch.tensor([[1.0, 0.0]]).repeat(50, 1)
    x, y = torch.cat([side, -side]), torch.tensor([1] * 50 + [0] * 50)
    found = _run(model, x, y, free_threat("linf", 1.5))
    assert int((model.logits(found).argmax(1) != y).sum()) == 50


@pytest.mark.parametrize("norm", NORMS)
def test_every_row_wears_the_same_pattern_of_at_most_eps(norm, images, image_threat):
    threat = replace(image_threat(norm, {"linf": 8.0, "l2": 60.0, "l1": 400.0}[norm]), domain=())
    x, y = images.test.x, images.test.y
    change = _run(images.model, x, y, threat) - x
    torch.testing.assert_close(change, change[:1].expand_as(change), atol=1e-3, rtol=0)
    eps = threat.budget.eps
    assert 0.9 * eps <= float(size(norm, x + change, x, torch.tensor(1.0))[0]) <= 1.0001 * eps


def test_rows_it_never_saw_cost_nothing_and_fall_all_the_same(images, image_threat):
    from titer.assess.judge import attack_rows

    x, y = images.test.x, images.test.y
    attack = make_attack({"name": "universal", "fit_share": 0.4})
    found = attack_rows(attack, images.model, x, y, image_threat("linf", 16.0))
    attacked = found.proposal.attacked
    unseen = attacked & (found.proposal.forwards == 0)
    assert int(unseen.sum()) == int(attacked.sum()) - round(0.4 * int(attacked.sum()))
    assert float(found.verdict.won[unseen].float().mean()) > 0.3
    assert bool((found.proposal.x_adv[unseen] != x[unseen]).flatten(1).any(1).all())


def test_more_rows_are_won_than_by_a_random_pattern_of_the_same_size(images, image_threat):
    threat, x, y = image_threat("linf", 12.0), images.test.x, images.test.y

    def won(pattern):
        return int((images.model.logits(threat.project(x + pattern, x)).argmax(1) != y).sum())

    signs = torch.randn((20, 1, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).sign()
    random = max(won(12.0 * one) for one in signs)
    assert int((images.model.logits(_run(images.model, x, y, threat)).argmax(1) != y).sum()) > random + 15


def test_a_target_is_reached_by_most_rows_of_a_curved_model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 4))
    model = network_model("curved", net, lambda x: x, {})
    x = torch.rand((120, 12))
    y = model.logits(x).argmax(1)
    target = int(y.bincount(minlength=4).argmin())
    budget = ball("linf", 1.0, torch.tensor(1.0), "unit")
    threat = Threat(family="linf", budget=budget, domain=(), goal=Targeted(target, f"targeted:{target}"))
    won = threat.goal.won(model.logits(_run(model, x, y, threat)), y)
    assert float(won.float().mean()) > 0.6


def test_in_a_table_it_keeps_the_rules_and_is_as_good_as_the_best_corner(tables, table_threat):
    threat, x, y = table_threat("linf", 1.0), tables.test.x, tables.test.y
    x_adv = _run(tables.model, x, y, threat, fit_share=1.0)
    assert bool(threat.contains(x_adv, x).all())

    def won(rows):
        return int((tables.model.logits(rows).argmax(1) != y).sum())

    corners = torch.tensor(list(product((-1.0, 1.0), repeat=6))) * threat.budget.scaled(x)
    best = max(won(threat.project(x + corner, x)) for corner in corners)
    assert won(x_adv) >= best - 1 > 15


def test_one_row_doubles_and_randomised_models_work(linear_model, free_threat):
    model, x, y, _ = _linear(linear_model)
    assert _run(model, x[:1], y[:1], free_threat("linf", 0.5)).shape == x[:1].shape
    double = _run(
        replace(model, logits=lambda z: model.logits(z.float()).double()), x.double(), y, free_threat("l2", 1)
    )
    assert double.dtype == torch.float64
    noisy = replace(
        model, draw=lambda rng: lambda z: model.logits(z + 0.1 * torch.randn(z.shape[1:], generator=rng)), logits=None
    )
    found = _run(noisy, x, y, free_threat("linf", 0.5), epochs=3)
    assert float((model.logits(found).argmax(1) != y).float().mean()) > 0.2


def test_the_share_learned_on_is_drawn_anew_by_each_seed(images, image_threat):
    x, y, threat = images.test.x, images.test.y, image_threat("l2", 60.0)
    one, same, other = (_run(images.model, x, y, threat, seed, fit_share=0.2, epochs=3) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_box_is_kept_row_by_row(linear_model):
    model, x, y, _ = _linear(linear_model)
    x = x.sigmoid()
    budget = ball("linf", 0.5, torch.tensor(1.0), "unit")
    threat = Threat(family="linf", budget=budget, domain=(Box(low=0.0, high=1.0),), goal=AnyError())
    found = _run(model, x, y, threat)
    assert bool(threat.contains(found, x).all())
