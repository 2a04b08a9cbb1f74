"""The sticker lies under the mask, is one for all rows, and fools a model that is known to look for it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.attacks.patch import _placed, _sticker
from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.noise import Noise
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.engine.rows import Rows
from titer.threats.balls import ball
from titer.threats.goals import AnyError, Targeted
from titer.threats.rules import Box, MutableMask

SIDE = 16
ALL = torch.ones(1, SIDE, SIDE, dtype=torch.bool)


def _threat(mask=ALL, eps=255.0, norm="linf", goal=None):
    domain = (Box(low=0.0, high=255.0), MutableMask(mask=mask))
    budget = ball(norm, eps, torch.tensor(1.0), "grey level")
    return Threat(family=norm, budget=budget, domain=domain, goal=goal or AnyError())


def _grey(rows=30, channels=1):
    return 100 + 20 * torch.rand((rows, channels, SIDE, SIDE), generator=torch.Generator().manual_seed(0))


def _bright_spot():
    """Return a model that says 1 where some 3 x 3 spot is bright: a sticker wins wherever it lies."""
    net = nn.Conv2d(1, 1, 3, bias=False)
    nn.init.constant_(net.weight, 1 / 9)

    def logits(x):
        brightest = net(x).flatten(1).amax(1)
        return torch.stack([torch.zeros_like(brightest), (brightest - 180) / 10], 1)

    return replace(network_model("spot", net, lambda x: x, {}), logits=logits)


def _run(model, x, y, threat, seed=0, **settings):
    attack = make_attack({"name": "patch", **settings})
    return attack(model, x, y, threat, rng=torch.Generator().manual_seed(seed))


def test_a_model_that_looks_for_a_bright_spot_is_fooled_wherever_the_sticker_lies():
    x = _grey()
    y = torch.zeros(len(x), dtype=torch.int64)
    found = _run(_bright_spot(), x, y, _threat(), size=0.3)
    assert _bright_spot().logits(found).argmax(1).tolist() == [1] * len(x)
    places = (found != x).flatten(1).float()
    assert len(places.unique(dim=0)) > 20, "each row has its sticker at a place of its own"


def test_a_sticker_too_small_for_the_spot_fools_nobody():
    x = _grey()
    y = torch.zeros(len(x), dtype=torch.int64)
    found = _run(_bright_spot(), x, y, _threat(), size=1 / SIDE, rotation=0, shrink=0)
    assert bool(((found != x).flatten(1).sum(1) <= 1).all())
    assert _bright_spot().logits(found).argmax(1).tolist() == [0] * len(x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nothing_changes_outside_the_mask_nor_beyond_the_budget(norm):
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, 2:9, 5:14] = True
    threat = _threat(mask, {"linf": 60.0, "l2": 200.0, "l1": 900.0}[norm], norm)
    x = _grey()
    found = _run(_bright_spot(), x, torch.zeros(len(x), dtype=torch.int64), threat, size=0.3)
    assert bool(threat.contains(found, x).all())
    assert bool((found != x).flatten(1).any(1).all())


def _rows(x, threat):
    at = torch.arange(len(x))
    return Rows(model=_bright_spot(), threat=threat, x=x, y=at, at=at, noise=Noise(1, at), rng=torch.Generator())


@pytest.mark.parametrize(("rotation", "shrink"), [(0.0, 0.0), (20.0, 0.0), (45.0, 0.3), (180.0, 0.1)])
def test_the_whole_sticker_is_under_the_mask_in_every_turn(rotation, shrink):
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, 1:10, 3:15] = True
    x, threat = _grey(400), _threat(mask)
    placed = _placed(_rows(x, threat), _sticker(x, threat, 0.3, rotation, shrink))
    assert not bool((placed.under & ~mask).any())
    area = placed.under.flatten(1).sum(1).float()
    assert float(area.min()) > 0.75 * (5 * (1 - shrink)) ** 2
    assert float(area.max()) <= 25 * 1.3
    if rotation == 0:
        assert bool((area == 25).all())


def test_places_are_drawn_evenly_over_the_mask():
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, :4, :4] = True
    x, threat = _grey(2000), _threat(mask)
    placed = _placed(_rows(x, threat), _sticker(x, threat, 3 / SIDE, 0, 0))
    corners, counts = placed.under[:, 0, :2, :2].flatten(1).unique(dim=0, return_counts=True)
    assert len(corners) == 4, "a sticker of 3 pixels has four places in a mask of 4 x 4"
    assert int(counts.min()) > 400


def test_every_row_shows_the_same_sticker():
    x = _grey()
    threat = _threat(goal=Targeted(1, "targeted:1"))
    found = _run(_bright_spot(), x, torch.zeros(len(x), dtype=torch.int64), threat, size=0.25, rotation=0, shrink=0)
    stickers = []
    for row, clean in zip(found, x, strict=True):
        where = (row != clean)[0].nonzero()
        top, left = where.amin(0).tolist()
        stickers.append(row[0, top : top + 4, left : left + 4])
    stacked = torch.stack([one for one in stickers if one.shape == (4, 4)])
    assert len(stacked) > 25
    torch.testing.assert_close(stacked, stacked[:1].expand_as(stacked), atol=1e-3, rtol=0)


def test_a_colour_sticker_learns_its_colour():
    """A model that says 1 where the first channel beats the second somewhere by much: the sticker is of that colour."""
    net = nn.Conv2d(3, 1, 1)

    def logits(x):
        lead = (x[:, 0] - x[:, 1]).flatten(1).topk(6, dim=1).values.mean(1)
        return torch.stack([torch.zeros_like(lead), (lead - 150) / 10], 1)

    model = replace(network_model("colour", net, lambda x: x, {}), logits=logits)
    x = _grey(30, 3)
    mask = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    found = _run(model, x, torch.zeros(30, dtype=torch.int64), _threat(mask), size=0.25)
    assert float(model.logits(found).argmax(1).float().mean()) > 0.9


def test_without_a_mask_or_an_image_or_room_it_says_so(tables, table_threat):
    x = _grey()
    y = torch.zeros(len(x), dtype=torch.int64)
    open_threat = _threat()
    bare = replace(open_threat, domain=open_threat.domain[:1])
    with pytest.raises(Incompatible, match="needs a threat with a mask"):
        _run(_bright_spot(), x, y, bare)
    small = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    small[:, :3, :3] = True
    with pytest.raises(Incompatible, match="a sticker of 4 pixels, turned by up to 20 degrees, fits nowhere"):
        _run(_bright_spot(), x, y, _threat(small))
    masked = table_threat("linf", 1.0)
    masked = replace(masked, domain=(*masked.domain, MutableMask(mask=torch.ones(6, dtype=torch.bool))))
    with pytest.raises(Incompatible, match=r"patch needs 2-D images .*: rows here are \(6,\)"):
        _run(tables.model, tables.test.x, tables.test.y, masked)


def test_one_pixel_images_and_one_row_work():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    model = network_model("pixel", net, lambda x: x / 255, {})
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    x = torch.full((1, 1, 1, 1), 100.0)
    found = _run(model, x, torch.tensor([0]), _threat(mask))
    assert found.shape == x.shape
    assert bool(_threat(mask).contains(found, x).all())


def test_the_same_seed_repeats():
    x = _grey()
    y = torch.zeros(len(x), dtype=torch.int64)
    one, same, other = (_run(_bright_spot(), x, y, _threat(), seed, epochs=2) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
