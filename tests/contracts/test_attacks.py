"""What every registered attack keeps, whatever the norm, the data and the rules."""

import re
from dataclasses import replace

import pytest
import torch

from titer.assess.judge import predict, propose, reached, verdict
from titer.core.errors import Incompatible
from titer.core.registry import SHELVES

ATTACKS = SHELVES["attacks"].all()
NORMS = ("linf", "l2", "l1")
SCENES = ("image", "masked image", "table")
EPS = {
    "image": {"linf": 8.0, "l2": 60.0, "l1": 400.0},
    "masked image": {"linf": 16.0, "l2": 80.0, "l1": 500.0},
    "table": {"linf": 1.0, "l2": 2.0, "l1": 3.0},
}
THREAT_ID = re.compile(r"NISTAML\.\d+|AML\.T\d{4}(\.\d{3})?")


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def scene(images, tables, image_threat, table_threat):
    """A model that gets rows right, the rows, and a threat, by kind of data."""

    def make(kind, norm, count=40, access="gradient"):
        toy = tables if kind == "table" else images
        if kind == "table":
            threat = table_threat(norm, EPS[kind][norm], access=access)
        else:
            threat = image_threat(norm, EPS[kind][norm], mask=kind != "image", access=access)
        right = toy.model.logits(toy.test.x).argmax(1) == toy.test.y
        rows = toy.test.take(right.nonzero().flatten()[:count])
        return toy.model, rows.x, rows.y, threat

    return make


@pytest.fixture(params=ATTACKS)
def plugin(request):
    return ATTACKS[request.param]


every_scene = pytest.mark.parametrize("kind", SCENES)
every_norm = pytest.mark.parametrize("norm", NORMS)


@every_norm
@every_scene
def test_it_returns_what_it_got_in_form_and_leaves_its_arguments_alone(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm)
    before = (x.clone(), y.clone(), model.logits(x), threat.budget.scale.clone())
    found = plugin.factory()(model, x, y, threat, rng=_rng())
    assert (found.shape, found.dtype, found.device) == (x.shape, x.dtype, x.device)
    assert found.data_ptr() != x.data_ptr()
    assert not found.requires_grad
    for kept, now in zip(before, (x, y, model.logits(x), threat.budget.scale), strict=True):
        assert torch.equal(kept, now)


@every_norm
@every_scene
def test_the_same_seed_repeats(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm, count=15)
    torch.manual_seed(1)
    first = plugin.factory()(model, x, y, threat, rng=_rng(3))
    torch.manual_seed(2)
    assert torch.equal(plugin.factory()(model, x, y, threat, rng=_rng(3)), first)


@every_norm
@every_scene
def test_it_stays_inside_and_pays(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm)
    minimal = "minimal" in plugin.traits
    none = torch.zeros(len(x), dtype=torch.bool)
    found = propose(plugin.factory(), model, x, y, threat, none, minimal=minimal, rng=_rng())
    inside = threat.allowed if minimal else threat.contains
    assert bool(inside(found.x_adv, x).all())
    assert float(found.put_back.float().mean()) <= 0.05
    assert bool((found.forwards > 0).all())
    assert bool((found.forwards + found.backwards < 10_000).all())


@every_norm
@every_scene
def test_it_is_no_weaker_than_a_single_step(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm, count=80)
    clean = predict(model, x, rng=_rng())
    won = {}
    for one in (ATTACKS["fgsm"], plugin):
        minimal = "minimal" in one.traits
        found = propose(one.factory(), model, x, y, threat, reached(threat, clean, y), minimal=minimal, rng=_rng())
        # A least-perturbation attack follows local slopes: on a bent network its way is up to a quarter longer.
        held_to = threat.at(1.25 * threat.budget.eps) if minimal else threat
        judged = verdict(model, x, y, clean, found, held_to, minimal=minimal, rng=_rng(1))
        won[one.name] = float(judged.won.float().mean())
    assert won["fgsm"] > 0.1
    assert won[plugin.name] >= won["fgsm"] - 0.02


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_access_is_enforced(plugin, access, scene):
    """An attack that needs no gradient may run; none may get one."""
    model, x, y, threat = scene("image", "linf", count=5, access=access)
    none = torch.zeros(len(x), dtype=torch.bool)
    try:
        found = propose(plugin.factory(), model, x, y, threat, none, minimal=False, rng=_rng())
    except Incompatible:
        return
    assert float(found.backwards.sum()) == 0.0
    assert plugin.name not in {"fgsm", "bim", "pgd", "deepfool"}


@every_norm
@every_scene
@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_work(plugin, kind, norm, count, scene):
    model, x, y, threat = scene(kind, norm, count=count)

    def logits(rows):
        assert len(rows), "many a network cannot take a batch of no rows"
        return model.logits(rows)

    found = plugin.factory()(replace(model, logits=logits), x, y, threat, rng=_rng())
    assert found.shape == x.shape


def test_a_row_does_not_depend_on_its_neighbours(plugin, scene):
    """The success of a batch is that of its rows: no row may borrow from another."""
    model, x, y, threat = scene("image", "linf", count=40)
    minimal = "minimal" in plugin.traits
    x = torch.cat([x, x.flip(0)])
    y = torch.cat([y, y.flip(0)])
    found = plugin.factory()(model, x, y, threat, rng=_rng())
    won = model.logits(found).argmax(1) != y
    if not minimal:
        won = won & threat.contains(found, x)
    assert abs(int(won[:40].sum()) - int(won[40:].sum())) <= 4


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 5
    assert re.search(r"\d{4}", plugin.paper), "a paper with its year"
    assert plugin.threat_ids
    assert all(THREAT_ID.fullmatch(one) for one in plugin.threat_ids), plugin.threat_ids
    assert plugin.traits <= {"minimal", "single-step"}
