"""Detectors share the pass that answers an input, and nothing but its time is changed by that."""

from __future__ import annotations

from dataclasses import replace

import torch

from titer.core.plugins import make_detector
from titer.engine.features import answers, penultimate
from titer.engine.one_pass import sharing


def _counting(model):
    """Return the model and a list that grows by one a pass."""
    passes = []

    def logits(x):
        passes.append(len(x))
        return model.logits(x)

    return replace(model, logits=logits), passes


def test_the_answer_and_the_features_come_from_one_pass(conv_images):
    counted, passes = _counting(conv_images.model)
    model, x = sharing(counted), conv_images.test.x[:3]
    read = penultimate(model, x)
    read(conv_images.test.x[:2])
    passes.clear()
    fresh = x.clone()
    first = model.logits(fresh)
    assert torch.equal(answers(model, fresh), first)
    assert read(fresh).shape[0] == 3
    assert passes == [3]


def test_features_and_scores_are_the_same_as_without_sharing(conv_images):
    plain, shared, x = conv_images.model, sharing(conv_images.model), conv_images.test.x[:5]
    assert torch.equal(penultimate(shared, x)(x), penultimate(plain, x)(x))
    for name in ("shift", "nearest-neighbour", "feature-squeezing", "saliency-drift"):
        alone, together = (
            make_detector(name)(one, conv_images.data, rng=torch.Generator().manual_seed(0)) for one in (plain, shared)
        )
        shared.logits(x)
        assert torch.allclose(together.score(x), alone.score(x), rtol=1e-5, atol=1e-6), name
        assert torch.allclose(together.score(x), alone.score(x), rtol=1e-5, atol=1e-6), name


def test_an_input_changed_in_place_gets_a_pass_of_its_own(conv_images):
    model, x = sharing(conv_images.model), conv_images.test.x[:2].clone()
    before = model.logits(x).clone()
    x.mul_(0.5)
    assert not torch.equal(model.logits(x), before)
    assert torch.equal(model.logits(x), conv_images.model.logits(x))


def test_who_wants_a_gradient_gets_one(conv_images):
    model, x = sharing(conv_images.model), conv_images.test.x[:2].clone()
    model.logits(x)
    x.requires_grad_()
    assert torch.autograd.grad(model.logits(x).sum(), x)[0].abs().sum() > 0
    assert torch.autograd.grad(penultimate(model, x.detach())(x).sum(), x)[0].abs().sum() > 0


def test_a_layer_asked_for_later_is_read_too(conv_images):
    model, x = sharing(conv_images.model), conv_images.test.x[:2].clone()
    model.logits(x)
    assert torch.equal(penultimate(model, x)(x), penultimate(conv_images.model, x)(x))
