"""Ensembles: the mean probability, members that differ, and their disagreement as a sign of risk."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_defense
from titer.training.committee import Committee, committee_model, disagreement, together


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def quick(images):
    return replace(images.data, recipe=replace(images.data.recipe, epochs=4))


@pytest.mark.parametrize(("output", "chances"), [("classes", lambda v: v.softmax(-1)), ("labels", torch.sigmoid)])
def test_its_probability_is_the_members_mean(output, chances):
    votes = 5 * torch.randn((3, 7, 4), generator=_rng())
    torch.testing.assert_close(chances(together(votes, output)), chances(votes).mean(0))


def test_of_a_value_it_is_the_members_mean_and_of_a_mask_each_pixels():
    votes = torch.randn((3, 5, 2, 4, 4), generator=_rng())
    torch.testing.assert_close(together(votes, "mask").softmax(1), votes.softmax(2).mean(0))
    torch.testing.assert_close(together(votes[..., 0, 0], "value"), votes[..., 0, 0].mean(0))


def test_members_who_are_sure_hide_no_gradient():
    votes = torch.tensor([[[300.0, 0.0]], [[200.0, 0.0]]], requires_grad=True)
    lead = together(votes, "classes").diff(dim=1).sum()
    assert float(torch.autograd.grad(lead, votes)[0].abs().sum()) > 0.5


@pytest.mark.parametrize("by", ["seeds", "augmentations", "checkpoints"])
def test_members_differ_and_each_costs(by, images, quick):
    spec = {"name": "ensemble-smoothing", "members": 3, "by": by}
    model = make_defense(spec)(images.model, quick, rng=_rng())
    assert isinstance(model.net, Committee)
    votes = model.net.votes(images.test.x)
    assert not torch.equal(votes[0], votes[1])
    assert not torch.equal(votes[1], votes[2])
    # The undefended model's training and three more; checkpoints share one training's epochs.
    costs = json.loads(model.provenance["costs"])
    assert len(costs) == 4
    assert [one["epochs"] for one in costs[1:]] == [2 if by == "checkpoints" else 4] * 3
    assert 0.0 <= float(model.provenance["disagreement"]) <= 1.0


def test_members_are_trained_by_any_defence(images, quick):
    inner = {"name": "adversarial-training", "eps": 6.0, "unit": "grey level", "epochs": 1, "attack": "fgsm"}
    spec = {"name": "ensemble-smoothing", "members": 2, "defense": inner}
    model = make_defense(spec)(images.model, quick, rng=_rng())
    assert isinstance(model.net, Committee)
    with pytest.raises(Incompatible, match="a member of toy's ensemble is no plain network"):
        make_defense({**spec, "defense": "randomized-activations"})(images.model, quick, rng=_rng())


def test_an_ensemble_is_one_network_that_can_be_trained_on(images, quick):
    model = make_defense({"name": "ensemble-smoothing", "members": 2})(images.model, quick, rng=_rng())
    spec = {"name": "fast-adversarial-training", "eps": 6.0, "unit": "grey level", "epochs": 1}
    assert isinstance(make_defense(spec)(model, quick, rng=_rng()).net, Committee)


def _member(bias):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor(bias))
    return Model(name="member", logits=net, net=net, rebuild=lambda own: own)


def test_disagreement_is_zero_among_equals_and_log_m_among_opposites():
    x = torch.zeros(3, 1, 2, 2)
    same = [_member([4.0, -4.0]) for _ in range(2)]
    opposite = [_member([40.0, -40.0]), _member([-40.0, 40.0])]
    torch.testing.assert_close(disagreement(committee_model(same[0], same), x), torch.zeros(3))
    torch.testing.assert_close(disagreement(committee_model(same[0], opposite), x), torch.full((3,), math.log(2)))


def test_disagreement_is_a_sign_of_risk(images):
    """It is higher on pure noise than on patients."""
    data = replace(images.data, recipe=replace(images.data.recipe, epochs=8))
    model = make_defense({"name": "ensemble-smoothing", "members": 4})(images.model, data, rng=_rng())
    strange = 255 * torch.rand(images.test.x.shape, generator=_rng(5))
    assert float(disagreement(model, strange).mean()) > 1.5 * float(disagreement(model, images.test.x).mean())
    with pytest.raises(Incompatible, match="toy is no ensemble"):
        disagreement(images.model, images.test.x)


def test_what_it_cannot_do_is_told(images):
    with pytest.raises(SpecError, match="members = 1 is not allowed"):
        make_defense({"name": "ensemble-smoothing", "members": 1})
    with pytest.raises(SpecError, match=r"defense\.quality = 0 is not allowed"):
        make_defense({"name": "ensemble-smoothing", "defense": {"name": "jpeg", "quality": 0}})
    with pytest.raises(Incompatible, match="remote has no network to train"):
        make_defense("ensemble-smoothing")(Model(name="remote", logits=lambda x: x), images.data, rng=_rng())
