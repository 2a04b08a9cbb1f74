"""What every registered search for poisoned rows keeps."""

from dataclasses import replace

import pytest
import torch

from titer.core.plugins import make_poison
from titer.core.registry import SHELVES
from titer.training.manifest import new_key, sign
from titer.training.weights import digest

CLEANERS = SHELVES["cleaners"].all()


@pytest.fixture(params=CLEANERS)
def plugin(request):
    if request.param == "provenance-check":
        pytest.importorskip("cryptography")
    return CLEANERS[request.param]


@pytest.fixture
def suspect(images, plugin):
    flip = make_poison({"name": "label-flip", "share": 0.1, "source": 1, "target": 0})
    found = flip(images.model, images.data, rng=torch.Generator().manual_seed(0))
    signed = sign(images.data.train, new_key()[0]) if plugin.name == "provenance-check" else None
    return found, replace(images.data, train=found.samples, manifest=signed)


@pytest.fixture
def search(plugin, images, suspect):
    made = plugin.factory(**plugin.check({}, plugin.name))
    return lambda seed=0: made(images.model, suspect[1], rng=torch.Generator().manual_seed(seed))


def test_each_row_has_a_score(search, suspect):
    scores = search()
    assert scores.shape == (len(suspect[1].train),)
    assert scores.dtype == torch.float32
    assert not bool(scores.isnan().any())
    assert not bool((scores == -float("inf")).any())


def test_it_leaves_its_arguments_alone_and_repeats(search, suspect, images):
    state, weights = torch.random.get_rng_state(), digest(images.model.net.state_dict())
    train = suspect[1].train.digest()
    assert torch.equal(search(), search())
    assert suspect[1].train.digest() == train
    assert digest(images.model.net.state_dict()) == weights
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"


def test_flipped_labels_of_an_easy_task_are_more_suspicious_than_others(search, suspect, plugin):
    scores, changed = search(), suspect[0].changed
    order = scores.argsort().argsort().float()
    assert order[changed].mean() > order[~changed].mean(), plugin.name


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert plugin.paper
