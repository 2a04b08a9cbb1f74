"""What every registered defence keeps."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make_defense
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.core.registry import SHELVES
from titer.threats.rules import Box
from titer.training.weights import digest

DEFENSES = SHELVES["defenses"].all()
BUDGET = {"eps": 4.0, "unit": "grey level", "epochs": 1}
SMALLEST = {
    "adaptive-margin": BUDGET,
    "adversarial-training": BUDGET,
    "denoising-autoencoder": {"epochs": 1, "width": 4},
    "diffusion-purification": {"epochs": 1, "width": 8, "steps": 1},
    "ensemble-smoothing": {"members": 2},
    "fast-adversarial-training": BUDGET,
    "interval-training": {"eps": 1.0, "unit": "grey level", "epochs": 1},
    "lipschitz": {"constant": 0.5, "unit": "grey level", "epochs": 1},
    "randomized-smoothing": {"sigma": 10.0, "unit": "grey level", "draws": 2, "epochs": 1},
    "trades": BUDGET,
}
"""The settings that a defence cannot do without, and that make it quick."""


@pytest.fixture(params=DEFENSES)
def plugin(request):
    return DEFENSES[request.param]


@pytest.fixture
def defend(plugin, images):
    data = replace(images.data, train=images.data.train.take(range(96)), recipe=replace(images.data.recipe, epochs=1))

    def run(seed=0):
        settings = plugin.check(SMALLEST.get(plugin.name, {}), plugin.name)
        return plugin.factory(**settings)(images.model, data, rng=torch.Generator().manual_seed(seed)), data

    return run


@pytest.fixture
def other_output():
    """A network that finds, measures or outlines: 8 x 8 images, one epoch."""

    def make(output):
        rng = torch.Generator().manual_seed(0)
        x = 255 * torch.rand((64, 1, 8, 8), generator=rng)
        bright = x.mean((1, 2, 3)) / 255
        truth = {
            "labels": torch.stack([bright > 0.5, bright > 0.51], 1).long(),
            "value": 100 * bright,
            "mask": (x[:, 0] > 128).long(),
        }[output]
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        end = nn.Conv2d(4, 2, 1) if output == "mask" else nn.Linear(256, 2 if output == "labels" else 1)
        net = nn.Sequential(net, end if output == "mask" else nn.Sequential(nn.Flatten(), end))
        plain = network_model("toy", net, lambda rows: rows / 255, {})
        model = replace(plain, output=output)
        ids = tuple(map(str, range(64)))
        rows = Samples(x=x, y=truth, ids=ids, patients=ids)
        data = TrainingData(
            train=rows.take(range(48)), validation=rows.take(range(48, 64)), classes=1 if output == "value" else 2,
            domain=(Box(low=0.0, high=255.0),), units={"grey level": torch.tensor(1.0)}, recipe=Recipe(epochs=1),
            value_range=(0.0, 255.0), output=output,
        )  # fmt: skip
        return model, data

    return make


def _logits(model, x):
    with torch.no_grad():
        return (model.logits if model.draw is None else model.draw(torch.Generator().manual_seed(1)))(x)


def _tried(defense, model, data):
    """Return the defended model and no reason, or None and the reason, which is one line."""
    try:
        return defense(model, data, rng=torch.Generator().manual_seed(0)), ""
    except Incompatible as reason:
        text = str(reason)
    assert text
    assert "\n" not in text
    return None, text


def test_required_settings_are_known_here(plugin):
    required = {one.name for one in plugin.settings() if one.default is ...}
    assert required <= set(SMALLEST.get(plugin.name, {})), f"add {plugin.name}'s required settings to SMALLEST"


def test_it_leaves_its_arguments_alone(defend, images):
    fields = (images.model.logits, images.model.net, images.model.rebuild, dict(images.model.provenance))
    before = (digest(images.model.net.state_dict()), images.model.logits(images.test.x))
    state = torch.random.get_rng_state()
    _, data = defend()
    assert digest(images.model.net.state_dict()) == before[0]
    assert torch.equal(images.model.logits(images.test.x), before[1])
    assert not images.model.net.training
    assert not any(p.requires_grad for p in images.model.net.parameters())
    assert fields == (images.model.logits, images.model.net, images.model.rebuild, dict(images.model.provenance))
    assert data.train.digest() == images.data.train.take(range(96)).digest()
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"


def test_the_same_seed_repeats(defend, images):
    torch.manual_seed(1)
    first = defend(seed=3)[0]
    torch.manual_seed(2)
    again = defend(seed=3)[0]
    assert torch.equal(_logits(first, images.test.x), _logits(again, images.test.x))


def test_it_answers_in_form(defend, images):
    model, _ = defend()
    for rows in (images.test.x, images.test.x[:1]):
        logits = _logits(model, rows)
        assert logits.shape == (len(rows), 2)
        assert logits.dtype == torch.float32
        assert bool(logits.isfinite().all())
    # Randomised models say so; all others answer the same twice.
    assert model.draw is not None or torch.equal(model.logits(images.test.x), model.logits(images.test.x))


def test_an_attacker_who_knows_it_gets_a_gradient(defend, images):
    model, _ = defend()
    grad = model.grad(lambda out: out[:, 0], images.test.x[:4], draws=2, rng=torch.Generator().manual_seed(0))
    assert grad.shape == images.test.x[:4].shape
    assert bool(grad.isfinite().all())
    assert bool((grad != 0).flatten(1).any(1).all())


def test_it_does_not_widen_the_access(plugin, images):
    limited = images.model.limited("scores")
    settings = plugin.check(SMALLEST.get(plugin.name, {}), plugin.name)
    try:
        model = plugin.factory(**settings)(limited, images.data, rng=torch.Generator())
    except Incompatible:
        return
    with pytest.raises(Incompatible):
        model.grad(lambda out: out[:, 0], images.test.x[:2], rng=torch.Generator())


def test_it_defends_a_table_or_says_why_not(plugin, tables):
    own = {"unit": "sd"} if "unit" in SMALLEST.get(plugin.name, {}) else {}
    settings = plugin.check(SMALLEST.get(plugin.name, {}) | own, plugin.name)
    data = replace(tables.data, train=tables.data.train.take(range(96)), recipe=replace(tables.data.recipe, epochs=1))
    model, reason = _tried(plugin.factory(**settings), tables.model, data)
    if model is None:
        assert "image" in reason
        return
    logits = _logits(model, tables.test.x)
    assert logits.shape == (len(tables.test), 2)
    assert bool(logits.isfinite().all())
    grad = model.grad(lambda out: out[:, 0], tables.test.x[:4], draws=2, rng=torch.Generator().manual_seed(0))
    assert bool((grad != 0).flatten(1).any(1).all())


@pytest.mark.parametrize("output", ["labels", "value", "mask"])
def test_it_defends_every_output_or_says_why_not(plugin, output, other_output):
    model, data = other_output(output)
    settings = plugin.check(SMALLEST.get(plugin.name, {}), plugin.name)
    defended, _ = _tried(plugin.factory(**settings), model, data)
    if defended is None:
        return
    before, after = _logits(model, data.validation.x), _logits(defended, data.validation.x)
    assert defended.output == output
    assert after.shape == before.shape
    assert bool(after.isfinite().all())


def test_it_stands_before_and_behind_another(defend, plugin, images):
    """A chain holds either way round, unless a training would have to reach through a transform."""
    data = replace(images.data, train=images.data.train.take(range(96)), recipe=replace(images.data.recipe, epochs=1))
    first = make_defense("jpeg")(defend()[0], data, rng=torch.Generator())
    assert _logits(first, images.test.x[:4]).shape == (4, 2)
    behind = make_defense("jpeg")(images.model, data, rng=torch.Generator())
    settings = plugin.check(SMALLEST.get(plugin.name, {}), plugin.name)
    second, reason = _tried(plugin.factory(**settings), behind, data)
    if second is None:
        assert "no network to train" in reason
        return
    assert _logits(second, images.test.x[:4]).shape == (4, 2)
    grad = second.grad(lambda out: out[:, 0], images.test.x[:4], rng=torch.Generator().manual_seed(0))
    assert bool((grad != 0).flatten(1).any(1).all())


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert "arXiv:" in plugin.paper or "10." in plugin.paper
