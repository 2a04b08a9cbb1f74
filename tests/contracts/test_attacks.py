"""What every registered attack keeps, whatever the norm, the data and the rules."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.assess.judge import predict, propose, verdict
from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.registry import SHELVES

ATTACKS = SHELVES["attacks"].all()
NORMS = ("linf", "l2", "l1", "l0")
SCENES = ("image", "masked image", "table", "notes")
EPS = {
    "image": {"linf": 8.0, "l2": 60.0, "l1": 400.0, "l0": 8.0},
    "masked image": {"linf": 16.0, "l2": 80.0, "l1": 500.0, "l0": 10.0},
    "table": {"linf": 1.0, "l2": 2.0, "l1": 3.0, "l0": 3.0},
    "notes": {"l0": 4.0},
}
QUICK = {"steps": 100, "queries": 400}
"""What the suite can afford of an attack's own steps and questions."""
THREAT_ID = re.compile(r"NISTAML\.\d+|AML\.T\d{4}(\.\d{3})?")


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def scene(images, tables, notes, image_threat, table_threat, note_threat):
    """A model that gets rows right, the rows, and a threat, by kind of data."""

    def make(kind, norm, count=40, access="gradient"):
        toy = {"table": tables, "notes": notes}.get(kind, images)
        if kind == "notes":
            threat = note_threat(EPS[kind][norm], access=access)
        elif kind == "table":
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


def _make(plugin):
    """Make the attack at its defaults, or at fewer steps and questions where those are many."""
    few = {one.name: min(one.default, QUICK[one.name]) for one in plugin.settings() if one.name in QUICK}
    return plugin.factory(**few)


def _refused(plugin, model, x, y, threat):
    """Return whether the attack cannot run here, having seen that it says so."""
    reason = plugin.needs.refused(plugin.name, threat, model.limited(threat.access))
    if reason is not None:
        with pytest.raises(Incompatible, match=re.escape(reason)):
            _make(plugin)(model.limited(threat.access), x, y, threat, rng=_rng())
    return reason is not None


def _own(plugin, scene, count=40):
    """Return a scene that the attack can run in: the first norm that it knows."""
    return scene(_kind(plugin), plugin.needs.norms[0], count=count)


def _kind(plugin):
    if plugin.needs.words:
        return "notes"
    return "masked image" if plugin.needs.mask else "image"


every_case = pytest.mark.parametrize(("kind", "norm"), [(kind, norm) for kind in SCENES for norm in EPS[kind]])


@every_case
def test_it_returns_what_it_got_in_form_and_repeats_and_leaves_its_arguments_alone(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm, count=20)
    if _refused(plugin, model, x, y, threat):
        return
    before = (x.clone(), y.clone(), model.logits(x), threat.budget.scale.clone())
    torch.manual_seed(1)
    try:
        found = _make(plugin)(model, x, y, threat, rng=_rng(3))
    except Incompatible:
        assert kind in ("table", "notes"), "an attack may need images, or numbers, and says so"
        return
    assert (found.shape, found.dtype, found.device) == (x.shape, x.dtype, x.device)
    assert found.data_ptr() != x.data_ptr()
    assert not found.requires_grad
    torch.manual_seed(2)
    assert torch.equal(_make(plugin)(model, x, y, threat, rng=_rng(3)), found)
    for kept, now in zip(before, (x, y, model.logits(x), threat.budget.scale), strict=True):
        assert torch.equal(kept, now)


@every_case
def test_it_stays_inside_pays_and_is_no_weaker_than_it_should_be(plugin, kind, norm, scene):
    model, x, y, threat = scene(kind, norm, count=60)
    if _refused(plugin, model, x, y, threat):
        return
    minimal, none = "minimal" in plugin.traits, torch.zeros(len(x), dtype=torch.bool)
    try:
        found = propose(_make(plugin), model, x, y, threat, none, minimal=minimal, rng=_rng())
    except Incompatible:
        assert kind in ("table", "notes"), "an attack may need images, or numbers, and says so"
        return
    inside = threat.allowed if minimal else threat.contains
    assert bool(inside(found.x_adv, x).all())
    assert float(found.put_back.float().mean()) <= 0.05
    paid = found.forwards > 0
    assert bool(paid.any() if "joint" in plugin.traits else paid.all())
    assert bool((found.forwards + found.backwards < 10_000).all())
    if plugin.needs.access != "gradient":
        assert plugin.name == "worst-case" or float(found.backwards.sum()) == 0.0
    _strong_enough(plugin, model, x, y, threat, found)


def _strong_enough(plugin, model, x, y, threat, found):
    """A gradient attack wins no less than a single step; an attack that sees less, half of it; a joint one, something.

    A least-perturbation attack follows local slopes: on a bent network its way is up to a quarter longer.
    """
    minimal, clean = "minimal" in plugin.traits, predict(model, x, rng=_rng())
    held_to = threat.at(1.25 * threat.budget.eps) if minimal else threat
    judged = verdict(model, x, y, clean, found, held_to, minimal=minimal, rng=_rng(1))
    won = float(judged.won.float().mean())
    if threat.budget.norm == "l0":
        assert won > 0.1
        return
    step = propose(ATTACKS["fgsm"].factory(), model, x, y, threat, ~found.attacked, minimal=False, rng=_rng())
    single = float(verdict(model, x, y, clean, step, threat, minimal=False, rng=_rng(1)).won.float().mean())
    assert single > 0.1
    if "joint" in plugin.traits:
        # A sticker of two pixels at a drawn place cannot win here; tests/attacks/test_patch.py shows where it must.
        assert won > 0.0 or plugin.needs.mask
    elif plugin.needs.access == "gradient" or plugin.name == "worst-case":
        assert won >= single - 0.02
    else:
        assert won >= single / 2


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_access_is_enforced(plugin, access, scene):
    """An attack that needs no more may run; none may get more."""
    model, x, y, threat = scene(_kind(plugin), plugin.needs.norms[0], count=5, access=access)
    if _refused(plugin, model, x, y, threat):
        return
    none = torch.zeros(len(x), dtype=torch.bool)
    minimal = "minimal" in plugin.traits
    found = propose(_make(plugin), model, x, y, threat, none, minimal=minimal, rng=_rng())
    assert float(found.backwards.sum()) == 0.0


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_work(plugin, count, scene):
    model, x, y, threat = _own(plugin, scene, count)

    def logits(rows):
        assert len(rows), "many a network cannot take a batch of no rows"
        return model.logits(rows)

    found = _make(plugin)(replace(model, logits=logits), x, y, threat, rng=_rng())
    assert found.shape == x.shape


def test_rows_that_are_won_already_cost_nothing(plugin, scene):
    model, x, y, threat = _own(plugin, scene, 6)
    minimal = "minimal" in plugin.traits
    everyone = torch.ones(len(x), dtype=torch.bool)
    found = propose(_make(plugin), model, x, 1 - y, threat, everyone, minimal=minimal, rng=_rng())
    assert torch.equal(found.x_adv, x)
    assert float(found.forwards.sum() + found.backwards.sum()) == 0.0


def test_rows_in_any_memory_layout_and_in_float64_work(plugin, scene):
    model, x, y, threat = _own(plugin, scene, 8)
    strided = x.repeat_interleave(2, dim=-1)[..., ::2]
    assert not strided.is_contiguous()
    found = _make(plugin)(model, strided, y, threat, rng=_rng())
    assert torch.equal(found, _make(plugin)(model, x, y, threat, rng=_rng()))
    net = model.net if plugin.needs.words else None  # where words are looked up, a gradient stops
    double = replace(model, logits=lambda rows: model.logits(rows.float()).double(), net=net, rebuild=None)
    found = _make(plugin)(double, x.double(), y, threat, rng=_rng())
    assert found.dtype == torch.float64
    inside = threat.allowed if "minimal" in plugin.traits else threat.contains
    assert bool(inside(threat.project(found, x.double()), x.double()).all())


def test_an_image_of_one_pixel_works(plugin, image_threat):
    threat = image_threat(plugin.needs.norms[0], 3.0)
    if plugin.needs.mask or plugin.needs.words:
        return
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[1].bias.copy_(torch.tensor([-100.0, 100.0]))
    model = network_model("pixel", net, lambda rows: rows, {})
    x = torch.tensor([101.0, 150.0, 99.5]).view(3, 1, 1, 1)
    y = torch.tensor([0, 0, 1])
    found = _make(plugin)(model, x, y, threat, rng=_rng())
    assert found.shape == x.shape
    assert bool(threat.allowed(found, x).all())


def test_a_row_does_not_depend_on_its_neighbours(plugin, scene):
    """The success of a batch is that of its rows: no row may borrow from another."""
    if "joint" in plugin.traits:
        return
    model, x, y, threat = _own(plugin, scene)
    minimal = "minimal" in plugin.traits
    x = torch.cat([x, x.flip(0)])
    y = torch.cat([y, y.flip(0)])
    found = _make(plugin)(model, x, y, threat, rng=_rng())
    won = model.logits(found).argmax(1) != y
    if not minimal:
        won = won & threat.contains(found, x)
    assert abs(int(won[:40].sum()) - int(won[40:].sum())) <= 4


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 5
    assert re.search(r"\d{4}", plugin.paper), "a paper with its year"
    assert plugin.threat_ids
    assert all(THREAT_ID.fullmatch(one) for one in plugin.threat_ids), plugin.threat_ids
    assert plugin.traits <= {"minimal", "single-step", "joint", "nested"}
