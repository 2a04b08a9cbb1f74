"""What every registered certifier keeps."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible
from titer.core.registry import SHELVES
from titer.training.weights import digest

CERTIFIERS = SHELVES["certifiers"].all()
QUICK = {"smoothing": {"sigma": 20.0, "draws": 100, "selection": 20}, "exact": {"time_limit": 0.5}}
NEEDS_NO_WEIGHTS = {"smoothing"}
EPS = 2.0


@pytest.fixture(params=CERTIFIERS)
def plugin(request):
    return CERTIFIERS[request.param]


@pytest.fixture
def norm(plugin):
    return min(plugin.traits)


@pytest.fixture
def certify(plugin, norm, images, image_threat):
    made = plugin.factory(**plugin.check(QUICK.get(plugin.name, {}), plugin.name))

    def run(model=images.model, x=images.test.x[:6], eps=EPS, norm=norm, seed=0):
        return made(model, x, image_threat(norm, eps), rng=torch.Generator().manual_seed(seed))

    return run


def test_it_answers_in_form(certify, images):
    found = certify()
    assert found.prediction.shape == found.radius.shape == (6,)
    assert found.prediction.dtype == torch.int64
    assert found.radius.dtype == torch.float32
    assert bool(((found.radius >= 0) & (found.radius <= EPS)).all())
    assert 0 < found.confidence <= 1
    given = found.prediction >= 0
    assert bool((found.radius[~given] == 0).all())
    assert bool(given.any())
    assert bool((found.radius[given] > 0).any()), "something is proven on an easy model"
    assert torch.equal(found.prediction[given], images.model.logits(images.test.x[:6]).argmax(1)[given])


def test_it_leaves_its_arguments_alone_and_repeats(certify, images):
    state, weights = torch.random.get_rng_state(), digest(images.model.net.state_dict())
    x = images.test.x[:3].clone()
    first, again = certify(x=x), certify(x=x)
    assert torch.equal(first.radius, again.radius)
    assert torch.equal(first.prediction, again.prediction)
    assert torch.equal(x, images.test.x[:3])
    assert digest(images.model.net.state_dict()) == weights
    assert not images.model.net.training
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"


def test_a_larger_threat_never_shortens_a_radius(certify):
    small, large = certify(eps=0.5), certify(eps=4.0)
    width = 4.0 / 2**8
    assert bool((large.radius >= small.radius - width).all())


def test_it_refuses_a_norm_that_it_proves_nothing_in(certify, plugin):
    assert plugin.traits
    for other in {"linf", "l2", "l1", "l0"} - plugin.traits:
        with pytest.raises(Incompatible, match=other):
            certify(norm=other)


def test_it_refuses_what_it_cannot_see_through(certify, plugin, images):
    hidden = replace(images.model, draw=lambda _: images.model.logits)
    with pytest.raises(Incompatible, match="randomised"):
        certify(model=hidden)
    with pytest.raises(Incompatible, match="classes"):
        certify(model=replace(images.model, output="labels"))
    if plugin.name not in NEEDS_NO_WEIGHTS:
        with pytest.raises(Incompatible, match="weights"):
            certify(model=images.model.limited("scores"))
    else:
        assert certify(model=images.model.limited("decision")).radius.shape == (6,)


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert "arXiv:" in plugin.paper
