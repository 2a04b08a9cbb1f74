"""What every registered defence keeps."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible
from titer.core.registry import SHELVES
from titer.training.weights import digest

DEFENSES = SHELVES["defenses"].all()
SMALLEST = {
    "adversarial-training": {"eps": 4.0, "unit": "grey level", "epochs": 1},
    "interval-training": {"eps": 1.0, "unit": "grey level", "epochs": 1},
    "lipschitz": {"constant": 0.5, "unit": "grey level", "epochs": 1},
    "randomized-smoothing": {"sigma": 10.0, "unit": "grey level", "draws": 2, "epochs": 1},
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


def _logits(model, x):
    with torch.no_grad():
        return (model.logits if model.draw is None else model.draw(torch.Generator().manual_seed(1)))(x)


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


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert "arXiv:" in plugin.paper or "10." in plugin.paper
