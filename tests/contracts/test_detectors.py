"""What every registered detector keeps, on images and on tables."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_detector
from titer.core.registry import SHELVES
from titer.training.weights import digest

DETECTORS = {name: plugin for name, plugin in SHELVES["detectors"].all().items() if "stream" not in plugin.traits}
QUICK = {"epochs": 3, "members": 1, "width": 4, "neighbours": 10}
"""What the suite can afford of a detector's own training."""
NEVER_KEPT = {"explainer-disagreement", "saliency-drift"}
"""Detectors whose state is no set of tensors: a bundle of the guard refuses them."""
ANSWERS_SUFFICE = {"feature-squeezing", "low-confidence", "reconstruction"}
"""Detectors that work on a model of which only answers are seen."""


CASES = [
    (name, kind) for name in DETECTORS for kind in ("images", "tables") if (name, kind) != ("saliency-drift", "tables")
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def plugin(case):
    return DETECTORS[case[0]]


@pytest.fixture
def scene(case, conv_images, tables):
    return _short(conv_images if case[1] == "images" else tables)


def _short(toy):
    recipe = replace(toy.data.recipe, epochs=2)
    return replace(toy, data=replace(toy.data, train=toy.data.train.take(range(120)), recipe=recipe))


def _few(plugin):
    names = {one.name for one in plugin.settings()}
    return {"name": plugin.name} | {name: value for name, value in QUICK.items() if name in names}


def _fitted(plugin, toy, seed=0):
    return make_detector(_few(plugin))(toy.model, toy.data, rng=torch.Generator().manual_seed(seed))


def test_one_for_images_refuses_tables(tables):
    with pytest.raises(Incompatible, match="takes signals, images and volumes"):
        _fitted(DETECTORS["saliency-drift"], _short(tables))


def test_it_leaves_its_arguments_alone_and_repeats(plugin, scene):
    before = digest(scene.model.net.state_dict()), scene.model.logits(scene.test.x), scene.data.train.digest()
    state = torch.random.get_rng_state()
    alarm = _fitted(plugin, scene, 3)
    first = alarm.score(scene.test.x).detach()
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"
    assert torch.equal(_fitted(plugin, scene, 3).score(scene.test.x).detach(), first)
    assert torch.equal(alarm.score(scene.test.x).detach(), first)
    assert digest(scene.model.net.state_dict()) == before[0]
    assert torch.equal(scene.model.logits(scene.test.x), before[1])
    assert scene.data.train.digest() == before[2]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in scene.model.net.modules())
    assert alarm.name == plugin.name


def test_it_scores_in_form_no_row_and_one_row_as_well(plugin, scene):
    alarm = _fitted(plugin, scene)
    scores = alarm.score(scene.test.x).detach()
    assert scores.shape == (len(scene.test),)
    assert scores.dtype == torch.float32
    assert bool(scores.isfinite().all())
    assert float(scores.std()) > 0
    assert alarm.score(scene.test.x[:0]).shape == (0,)
    assert torch.allclose(alarm.score(scene.test.x[:1]).detach(), scores[:1], rtol=1e-3, atol=1e-4)


def test_an_attacker_who_knows_it_has_a_slope_to_follow(plugin, scene):
    alarm = _fitted(plugin, scene)
    noise = torch.randn(scene.test.x[:20].shape, generator=torch.Generator().manual_seed(0))
    x = (scene.test.x[:20] + 0.7 * scene.data.train.x.std(0) * noise).requires_grad_()
    slope = torch.autograd.grad((alarm.smooth or alarm.score)(x).sum(), x)[0]
    assert bool(slope.isfinite().all())
    assert bool((slope != 0).any())


def test_rows_of_another_shape_are_refused(plugin, scene):
    alarm = _fitted(plugin, scene)
    with pytest.raises(Incompatible, match=rf"{plugin.name} was fitted on rows of shape"):
        alarm.score(scene.test.x[..., :-1])


def test_a_model_that_shows_its_decision_alone_is_refused_or_works(plugin, scene):
    """What needs more than a decision says so; no detector may read more of the model than it is given."""
    limited = scene.model.limited("decision")
    settings = _few(plugin)
    if plugin.name == "reconstruction":
        alarm = make_detector({**settings, "measure": "error"})(limited, scene.data, rng=torch.Generator())
        assert alarm.score(scene.test.x).shape == (len(scene.test),)
    with pytest.raises(Incompatible):
        make_detector(settings)(limited, scene.data, rng=torch.Generator())


def test_a_model_without_a_network_is_refused_or_works(plugin, scene):
    net = scene.model.net

    def logits(x):
        with torch.no_grad():
            return scene.model.logits(x)

    assert net is not None
    bare = Model(name="bare", logits=logits)
    if plugin.name in ANSWERS_SUFFICE:
        alarm = make_detector(_few(plugin))(bare, scene.data, rng=torch.Generator().manual_seed(0))
        assert bool(alarm.score(scene.test.x).isfinite().all())
        return
    with pytest.raises(Incompatible, match=r"network|gradients|takes signals"):
        make_detector(_few(plugin))(bare, scene.data, rng=torch.Generator().manual_seed(0))


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert "arXiv:" in plugin.paper or "10." in plugin.paper


def test_what_can_be_kept_says_the_same_when_it_is_had_back_from_its_state(plugin, scene):
    alarm = _fitted(plugin, scene)
    assert (alarm.state is None) == (plugin.name in NEVER_KEPT)
    if alarm.state is None:
        return
    detector = make_detector(_few(plugin))
    blank = torch.zeros(1, *scene.test.x.shape[1:])
    again = detector.restored(scene.model, {name: value.clone() for name, value in alarm.state.items()}, blank)
    assert torch.equal(again.score(scene.test.x), alarm.score(scene.test.x))
