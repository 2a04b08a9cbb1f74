"""What every registered explainer keeps, on images and on tables."""

import pytest
import torch

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_explainer
from titer.core.registry import SHELVES
from titer.training.weights import digest

EXPLAINERS = SHELVES["explainers"].all()
QUICK = {"samples": 60, "steps": 8, "cells": 4}
CASES = [(name, kind) for name in EXPLAINERS for kind in ("images", "tables") if (name, kind) != ("gradcam", "tables")]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def plugin(case):
    return EXPLAINERS[case[0]]


@pytest.fixture
def toy(case, conv_images, tables):
    return conv_images if case[1] == "images" else tables


def _explain(plugin, model, x, target, seed=0):
    few = {one.name: QUICK[one.name] for one in plugin.settings() if one.name in QUICK}
    return make_explainer({"name": plugin.name, **few})(model, x, target, rng=torch.Generator().manual_seed(seed))


def _rows(toy, count=4):
    return toy.test.x[:count], toy.test.y[:count]


def test_one_for_images_refuses_tables(tables):
    with pytest.raises(Incompatible, match="takes signals, images and volumes"):
        _explain(EXPLAINERS["gradcam"], tables.model, *_rows(tables))


def test_it_answers_in_form_repeats_and_leaves_its_arguments_alone(plugin, toy):
    x, y = _rows(toy)
    before, state = (x.clone(), y.clone(), digest(toy.model.net.state_dict())), torch.random.get_rng_state()
    found = _explain(plugin, toy.model, x, y)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert bool(found.isfinite().all())
    assert bool((found != 0).any())
    assert not found.requires_grad
    assert not x.requires_grad
    assert torch.equal(_explain(plugin, toy.model, x, y), found)
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert digest(toy.model.net.state_dict()) == before[2]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in toy.model.net.modules())


def test_no_row_works(plugin, toy):
    x, y = _rows(toy)
    assert _explain(plugin, toy.model, x[:0], y[:0]).shape == x[:0].shape


def test_a_model_without_gradients_is_explained_from_scores_or_refused(plugin, toy):
    x, y = _rows(toy)

    def logits(rows):
        with torch.no_grad():
            return toy.model.logits(rows)

    for model in (Model(name="remote", logits=logits), toy.model.limited("scores")):
        if plugin.name == "lime" or plugin.name == "shap":
            settings = {"name": plugin.name, "samples": 40, "cells": 3}
            found = make_explainer(settings | ({"method": "kernel"} if plugin.name == "shap" else {}))(
                model, x, y, rng=torch.Generator().manual_seed(0)
            )
            assert found.shape == x.shape
            assert bool((found != 0).any())
            continue
        with pytest.raises(Incompatible, match=r"gradients|network"):
            _explain(plugin, model, x, y)


def test_decisions_alone_are_refused(plugin, toy):
    x, y = _rows(toy)
    with pytest.raises(Incompatible):
        _explain(plugin, toy.model.limited("decision"), x, y)


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert "arXiv:" in plugin.paper
