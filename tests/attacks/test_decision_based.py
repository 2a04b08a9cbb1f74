"""Attacks that see decisions alone: near the known optimum, inside the rules, and never beyond their queries."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.assess.judge import propose
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball, size
from titer.threats.goals import Hidden, HighestLoss, Targeted
from titer.threats.rules import Box, MutableMask, whole_numbers

DUAL = {"linf": 1, "l2": 2}
ATTACKS = [("hopskipjump", "l2"), ("hopskipjump", "linf"), ("boundary", "l2")]
FEATURES = 20

every_attack = pytest.mark.parametrize(("attack", "norm"), ATTACKS)


def _spec(attack, queries):
    return {"name": attack, "queries": queries}


def _run(spec, model, x, y, threat, seed=0):
    return make_attack(spec)(model.limited("decision"), x, y, threat, rng=torch.Generator().manual_seed(seed))


def _proposed(spec, model, x, y, threat):
    none = torch.zeros(len(x), dtype=torch.bool)
    return propose(make_attack(spec), model, x, y, threat, none, minimal=True, rng=torch.Generator().manual_seed(0))


def _distance(norm, found, x, scale=1.0):
    return size(norm, found, x, torch.as_tensor(scale))


def _linear(linear_model, rows=20):
    rng = torch.Generator().manual_seed(2)
    model = linear_model(torch.randn((2, FEATURES), generator=rng), torch.tensor([0.3, -0.2]))
    x = torch.randn((rows, FEATURES), generator=rng)
    return model, x, model.logits(x).argmax(1)


def _plane(model, x, y, threat, norm, scale=1.0, mask=None):
    """Return how far the plane is from each row: the margin over the weights' dual norm."""
    slope = (model.net[1].weight[1] - model.net[1].weight[0]) * scale
    slope = slope if mask is None else slope[mask]
    return -threat.goal.margin(model.logits(x), y) / float(torch.linalg.vector_norm(slope, ord=DUAL[norm]))


@pytest.mark.parametrize(
    "scale", [torch.tensor(1.0), 0.5 + torch.arange(FEATURES) / FEATURES], ids=["one", "by feature"]
)
@every_attack
def test_it_finds_the_distance_to_the_plane(attack, norm, scale, linear_model, free_threat):
    model, x, y = _linear(linear_model)
    threat = free_threat(norm, 1.0, scale)
    found = _run(_spec(attack, 1500), model, x, y, threat)
    assert bool(threat.goal.won(model.logits(found), y).all())
    longer = _distance(norm, found, x, scale) / _plane(model, x, y, threat, norm, scale)
    assert float(longer.min()) > 0.9999
    assert float(longer.median()) < 1.05
    assert float(longer.max()) < 1.15


@every_attack
def test_under_a_mask_it_finds_the_distance_to_the_plane(attack, norm, linear_model, free_threat):
    model, x, y = _linear(linear_model)
    mask = torch.arange(FEATURES) % 2 == 0
    threat = replace(free_threat(norm, 1.0), domain=(MutableMask(mask=mask),))
    found = _run(_spec(attack, 1200), model, x, y, threat)
    assert bool(threat.allowed(found, x).all())
    longer = _distance(norm, found, x) / _plane(model, x, y, threat, norm, mask=mask)
    assert float(longer.median()) < 1.05


@every_attack
def test_a_feature_that_never_varies_is_left_alone(attack, norm, linear_model, free_threat):
    model, x, y = _linear(linear_model)
    scale = torch.where(torch.arange(FEATURES) < 5, 0.0, 1.0)
    threat = free_threat(norm, 1.0, scale)
    found = _run(_spec(attack, 1000), model, x, y, threat)
    assert torch.equal(found[:, :5], x[:, :5])
    # A find lies so near the boundary that the rounding of another batch may undo one.
    assert int((~threat.goal.won(model.logits(found), y)).sum()) <= 1


@pytest.mark.parametrize("queries", [1, 2, 7, 30, 150, 400])
@every_attack
def test_no_row_costs_more_than_its_queries(attack, norm, queries, images, image_threat):
    x, y = images.test.x[:30], images.test.y[:30]
    found = _proposed(_spec(attack, queries), images.model, x, y, image_threat(norm, 8.0, access="decision"))
    assert float(found.forwards.max()) <= queries
    assert float(found.backwards.sum()) == 0.0
    if queries == 400:
        assert float(found.forwards.median()) >= 350  # and they are used


@every_attack
def test_more_queries_come_nearer(attack, norm, images, image_threat):
    x, y = images.test.x[:30], images.test.y[:30]
    threat = image_threat(norm, 8.0, access="decision")
    runs = [_run(_spec(attack, queries), images.model, x, y, threat) for queries in (100, 300, 900)]
    few, some, many = (float(_distance(norm, found, x).median()) for found in runs)
    assert many < 0.9 * some < 0.8 * few


@every_attack
def test_it_sees_no_more_than_decisions(attack, norm, images, image_threat):
    """Scaling the logits changes scores and gradients, and no decision: the find is the same to the last bit."""
    x, y = images.test.x[:20], images.test.y[:20]
    threat = image_threat(norm, 8.0, access="decision")
    louder = replace(images.model, logits=lambda rows: 50.0 * images.model.logits(rows))
    found = _run(_spec(attack, 300), images.model, x, y, threat)
    assert torch.equal(_run(_spec(attack, 300), louder, x, y, threat), found)


@every_attack
def test_the_seed_repeats_and_neighbours_do_not_count(attack, norm, images, image_threat):
    x, y = images.test.x[:24], images.test.y[:24]
    threat, spec = image_threat(norm, 8.0, access="decision"), _spec(attack, 300)
    found = _run(spec, images.model, x, y, threat, seed=3)
    assert torch.equal(_run(spec, images.model, x, y, threat, seed=3), found)
    assert not torch.equal(_run(spec, images.model, x, y, threat, seed=4), found)
    # Each row has a starting point of its own here, so that it owes its neighbours nothing.
    part = _run(spec, images.model, x[:7], y[:7], threat, seed=3)
    torch.testing.assert_close(part, found[:7])


@every_attack
def test_finds_hold_when_they_are_predicted_again(attack, norm, linear_model, free_threat):
    """Alone or in a batch, in float32 or float64: a find on the very boundary would be lost to rounding."""
    model, x, y = _linear(linear_model)
    exact = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 2)).double()
    exact[1].load_state_dict(model.net[1].state_dict())
    threat = free_threat(norm, 1.0)
    found = _run(_spec(attack, 1000), model, x, y, threat)
    one_by_one = torch.cat([model.logits(row.unsqueeze(0)) for row in found])
    for logits in (model.logits(found), one_by_one, exact(found.double())):
        assert bool(threat.goal.won(logits, y).all())


@every_attack
def test_rules_of_a_table_are_kept(attack, norm, tables, table_threat):
    right = (tables.model.logits(tables.test.x).argmax(1) == tables.test.y).nonzero().flatten()
    x, y = tables.test.x[right], tables.test.y[right]
    threat = table_threat(norm, 1.0, access="decision")
    found = _proposed(_spec(attack, 600), tables.model, x, y, threat)
    assert int(found.put_back.sum()) == 0
    assert bool(threat.allowed(found.x_adv, x).all())
    assert torch.equal(found.x_adv[:, 2], x[:, 2])
    assert float((tables.model.logits(found.x_adv).argmax(1) != y).float().mean()) > 0.95


@every_attack
def test_whole_numbers_stay_whole(attack, norm, linear_model):
    rng = torch.Generator().manual_seed(0)
    model = linear_model(torch.randn((2, FEATURES), generator=rng))
    x = torch.randint(80, 176, (20, FEATURES), generator=rng).float()
    y = model.logits(x).argmax(1)
    rules = (Box(low=0.0, high=255.0), whole_numbers())
    threat = Threat(family=norm, budget=ball(norm, 1.0, torch.tensor(1.0), "count"), domain=rules, goal=Hidden(1, "h"))
    x, y = x[y == 1], y[y == 1]
    found = _run(_spec(attack, 1500), model, x, y, threat)
    assert torch.equal(found, found.round())
    assert bool(threat.goal.won(model.logits(found), y).all())
    # The plane's distance, and what rounding each value may cost.
    slack = {"linf": 2.0, "l2": math.sqrt(FEATURES)}[norm]
    # Under Linf the estimate of a normal from rounded inputs is rough: 1,500 questions leave up to a quarter.
    factor = {"linf": 1.25, "l2": 1.1}[norm]
    assert bool((_distance(norm, found, x) < factor * _plane(model, x, y, threat, norm) + slack).all())


@every_attack
def test_a_target_is_reached_from_other_rows_of_the_batch(attack, norm):
    """Class 2 is one small region around its own rows: no noise, flat or inverted image lies there."""
    centre = torch.full((FEATURES,), 0.5) + 0.25 * (-1.0) ** torch.arange(FEATURES)

    def logits(rows):
        near = 0.1 - (rows - centre).square().mean(1).sqrt()
        return torch.stack([rows.sum(1) - FEATURES / 2, FEATURES / 2 - rows.sum(1), 1000 * near], 1)

    rng = torch.Generator().manual_seed(0)
    x = torch.rand((12, FEATURES), generator=rng)
    x[9:] = centre + 0.05 * torch.randn((3, FEATURES), generator=rng)
    model = Model(name="island", logits=logits, access="decision")
    y = logits(x).argmax(1)
    assert (y == 2).tolist() == [False] * 9 + [True] * 3
    budget = ball(norm, 1.0, torch.tensor(1.0), "unit")
    goal = Targeted(2, "targeted:2")
    threat = Threat(family=norm, budget=budget, domain=(Box(low=0.0, high=1.0),), goal=goal, access="decision")
    found = _run(_spec(attack, 300), model, x, y, threat)
    assert bool(goal.won(logits(found), y)[:9].all())
    assert torch.equal(found[9:], x[9:]), "rows without a start are the clean ones"
    nearest = torch.cdist(x[:9], x[9:], p={"linf": math.inf, "l2": 2.0}[norm]).amin(1)
    assert bool((_distance(norm, found, x)[:9] < 0.9 * nearest).all())
    alone = _run(_spec(attack, 300), model, x[:9], y[:9], threat)
    assert torch.equal(alone, x[:9])


@every_attack
def test_a_goal_without_end_leaves_the_rows_clean(attack, norm, images, image_threat):
    x, y = images.test.x[:5], images.test.y[:5]
    threat = replace(image_threat(norm, 8.0, access="decision"), goal=HighestLoss())
    assert torch.equal(_run(_spec(attack, 100), images.model, x, y, threat), x)


@every_attack
def test_rows_that_are_won_already_stay(attack, norm, images, image_threat):
    x = images.test.x[:10]
    y = 1 - images.model.logits(x).argmax(1)
    found = _proposed(_spec(attack, 100), images.model, x, y, image_threat(norm, 8.0, access="decision"))
    assert torch.equal(found.x_adv, x)


@every_attack
def test_odd_forms_are_taken(attack, norm, linear_model, free_threat):
    rng = torch.Generator().manual_seed(1)
    pixel = linear_model(torch.tensor([[1.0], [-1.0]]))
    x = torch.randn((3, 1, 1, 1), generator=rng)
    threat = free_threat(norm, 1.0)
    found = _run(_spec(attack, 200), pixel, x, pixel.logits(x).argmax(1), threat)
    assert float(found.abs().max()) < 0.05, "the plane is at 0"
    model, wide, y = _linear(linear_model)
    model = replace(model, logits=lambda rows: rows @ model.net[1].weight.T.to(rows) + model.net[1].bias.to(rows))
    turned = wide.double().T.contiguous().T
    found = _run(_spec(attack, 200), model, turned, y, threat)
    assert found.dtype == torch.float64
    assert bool((model.logits(found).argmax(1) != y).all())


def test_under_rounded_decisions_the_radius_widens(linear_model):
    """A model that rounds its input answers alike everywhere near: only a wider radius shows the plane."""
    model, x, y = _linear(linear_model)
    steps = replace(model, logits=lambda rows: model.logits((rows * 4).round() / 4))
    keep = steps.logits(x).argmax(1) == y
    budget = ball("l2", 1.0, torch.tensor(1.0), "unit")
    threat = Threat(family="l2", budget=budget, domain=(), goal=Targeted(0, "t"), access="decision")
    x, y = x[keep & (y == 1)], y[keep & (y == 1)]
    found = _run(_spec("hopskipjump", 2000), steps, x, y, threat)
    assert bool(threat.goal.won(steps.logits(found), y).all())
    longer = _distance("l2", found, x) / _plane(model, x, y, threat, "l2")
    assert float(longer.median()) < 1.6


@pytest.mark.parametrize("attack", ["hopskipjump", "boundary"])
def test_norms_without_its_geometry_are_refused(attack, images, image_threat):
    with pytest.raises(Incompatible, match=f"{attack} knows no l1"):
        _run(_spec(attack, 10), images.model, images.test.x[:2], images.test.y[:2], image_threat("l1", 8.0))


class _FromUnit(nn.Module):
    """The toy network for inputs in [0, 1], as foolbox wants them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.logits(255 * x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("attack", "norm", "theirs", "queries"),
    [
        ("hopskipjump", "l2", {"name": "HopSkipJumpAttack", "steps": 4, "constraint": "l2"}, 750),
        ("hopskipjump", "linf", {"name": "HopSkipJumpAttack", "steps": 4, "constraint": "linf"}, 750),
        ("boundary", "l2", {"name": "BoundaryAttack", "steps": 500}, 500),
    ],
)
def test_it_comes_nearer_than_foolbox_at_no_more_queries(attack, norm, theirs, queries, images, image_threat):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox
    right = (images.model.logits(images.test.x).argmax(1) == images.test.y).nonzero().flatten()[:30]
    x, y = images.test.x[right], images.test.y[right]
    torch.manual_seed(0)
    settings = {key: value for key, value in theirs.items() if key != "name"}
    wrapped = foolbox.PyTorchModel(_FromUnit(images.model).eval(), bounds=(0, 1))
    other = getattr(foolbox.attacks, theirs["name"])(**settings)
    far = _distance(norm, 255 * other.run(wrapped, x / 255, foolbox.criteria.Misclassification(y)), x)
    near = _distance(norm, _run(_spec(attack, queries), images.model, x, y, image_threat(norm, 8.0)), x)
    assert float(near.median()) <= 1.02 * float(far.median())
