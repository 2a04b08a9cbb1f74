"""Attacks that see scores only: on outputs that are no single class, on models in steps, and Square's own geometry."""

from dataclasses import replace

import pytest
import torch

from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.engine.windows import field
from titer.threats.balls import ball, size
from titer.threats.goals import AnyError
from titer.threats.mask_goals import LowDice
from titer.threats.output_goals import AnyFinding, Shifted
from titer.threats.rules import MutableMask

SPECS = ("square", "nes", "spsa", "zoo", "simba")


def _run(spec, model, x, y, threat):
    return make_attack(spec)(model.limited("scores"), x, y, threat, rng=torch.Generator().manual_seed(0))


def _threat(norm, eps, *rules, goal=None):
    budget = ball(norm, eps, torch.tensor(1.0), "unit")
    return Threat(family=norm, budget=budget, domain=rules, goal=goal or AnyError())


def _rows(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", SPECS)
def test_a_finding_is_flipped(name):
    weights = _rows(4, 3)
    model = Model(name="findings", logits=lambda rows: rows @ weights, output="labels")
    x = _rows(20, 4)
    y = (model.logits(x) > 0).long()
    nearest = (model.logits(x).abs() / weights.abs().sum(0)).amin(1)
    threat = _threat("linf", 1.05 * float(nearest.median()), goal=AnyFinding())
    found = _run({"name": name, "queries": 500}, model, x, y, threat)
    won, near = threat.goal.won(model.logits(found), y), nearest < threat.budget.eps
    assert not bool((won & ~near).any())
    # The largest of several slopes has peaks of its own: a search may climb the finding that is not the nearest.
    assert int(won.sum()) >= 0.7 * int(near.sum()) > 0


@pytest.mark.parametrize("name", SPECS)
def test_a_value_is_moved_beyond_its_tolerance(name):
    weights = _rows(6, 1)
    model = Model(name="age", logits=lambda rows: rows @ weights, output="value")
    x = _rows(10, 6)
    y = model.logits(x).squeeze(1)
    reach = float(weights.abs().sum())
    for eps, reached in ((1.1 / reach, True), (0.95 / reach, False)):
        threat = _threat("linf", eps, goal=Shifted(1.0, "raise", "raise:1"))
        found = _run({"name": name, "queries": 1500}, model, x, y, threat)
        assert threat.goal.won(model.logits(found), y).tolist() == [reached] * len(x)


@pytest.mark.parametrize("name", SPECS)
def test_a_mask_is_spoilt(name):
    model = Model(name="mask", logits=lambda rows: torch.cat([-rows, rows], 1), output="mask")
    x = torch.full((4, 1, 6, 6), -1.0)
    x[:, :, 1:4, 1:4] = 0.3
    y = model.logits(x).argmax(1)
    threat = _threat("linf", 0.5, goal=LowDice(0.5, "dice:0.5"))
    found = _run({"name": name, "queries": 800}, model, x, y, threat)
    assert bool(threat.goal.won(model.logits(found), y).all())


def test_squares_see_through_steps_that_hide_the_gradient(images, image_threat):
    """A model that rounds its input has no gradient; random search does not notice."""
    x, y = images.test.x[:40], images.test.y[:40]
    stepped = Model(name="stepped", logits=lambda rows: images.model.logits((rows / 8).round() * 8))
    right = stepped.logits(x).argmax(1) == y
    found = _run("square", stepped, x[right], y[right], image_threat("linf", 12.0))
    assert float((stepped.logits(found).argmax(1) != y[right]).float().mean()) > 0.9


def test_square_spends_its_whole_l2_budget(images, image_threat):
    x, y = images.test.x[:10], images.test.y[:10]
    threat = replace(image_threat("l2", 10.0), domain=())
    stubborn = Model(
        name="stubborn", logits=lambda rows: torch.stack([rows.new_ones(len(rows)), -rows.mean((1, 2, 3))], 1)
    )
    found = _run({"name": "square", "queries": 200}, stubborn, x, torch.zeros_like(y), threat)
    torch.testing.assert_close(size("l2", found, x, torch.tensor(1.0)), torch.full((10,), 10.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 12), (2, 5, 4, 6), (11,)])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_windows_lie_inside_and_cover_what_they_should(shape, share):
    values = field(_threat("linf", 1.0), _rows(2, *shape), torch.Generator().manual_seed(0))
    window = values.window(share)
    places = values.place(window.at(torch.arange(200)))
    space = values.view(_rows(1, *shape)).shape[2]
    assert places.shape[1] == values.channels
    assert int(places.min()) >= 0
    assert int(places.max()) < space
    covered = len(window.cells)
    assert covered == len(set(places[0, 0].tolist()))
    side = (share * space) ** (1 / len(values.sizes))
    assert covered <= (side + 0.5) ** len(values.sizes) or covered == 1
    torch.testing.assert_close(torch.linalg.vector_norm(window.pattern, dim=1), torch.ones(len(window.pattern)))


def test_windows_reach_every_part_of_a_torn_mask_and_none_lies_outside_it():
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 7, 8] = True
    threat = _threat("linf", 1.0, MutableMask(mask=mask))
    values = field(threat, _rows(2, 1, 10, 10), torch.Generator().manual_seed(0))
    window = values.window(1.0)
    hit = [set(row.tolist()) & {23, 78} for row in window.at(torch.arange(len(window.starts)))]
    assert all(hit)
    assert set.union(*hit) == {23, 78}


def test_the_pattern_is_two_pyramids_of_opposite_sign():
    window = field(_threat("l2", 1.0), _rows(1, 1, 6, 6), torch.Generator()).window(1.0)
    halves = window.pattern.view(2, 6, 6)
    assert torch.equal(halves[0].sign(), torch.tensor([1.0] * 3 + [-1.0] * 3).view(6, 1).expand(6, 6))
    torch.testing.assert_close(halves[1], halves[0].T)
    steep = halves[0][:3].abs()
    assert float(steep[1, 3]) == float(steep.max())
