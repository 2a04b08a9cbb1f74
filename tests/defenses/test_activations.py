"""What is zeroed inside a network: by saliency, or by chance; and the masks that hide gradients."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.plugins import make_defense
from titer.defenses.feature_masking import MaskedHead
from titer.defenses.gradient_masking import staircase
from titer.defenses.randomized_activations import pruned


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_units_that_speak_loudest_for_the_prediction_are_kept():
    head = nn.Linear(4, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 3.0, 0.0]]))
        head.bias.zero_()
    features = torch.tensor([[1.0, 1.0, 0.5, 1.0], [0.0, 0.1, 1.0, 1.0]])
    # Row 0 predicts class 0 (2 against 1.5), led there by its first two units; row 1 class 1, by the third and fourth.
    out = MaskedHead(head, 0.5, "classes")(features).detach()
    torch.testing.assert_close(out, torch.tensor([[3.0, 0.0], [-1.0, 3.0]]))


def test_outside_training_the_gradient_is_the_unmasked_ones():
    head, features = nn.Linear(4, 2), torch.randn((3, 4), generator=_rng()).requires_grad_()
    masked = MaskedHead(head, 0.5, "classes").eval()
    through = torch.autograd.grad(masked(features)[:, 0].sum(), features)[0]
    torch.testing.assert_close(through, head.weight[0].expand(3, 4))
    with torch.no_grad():
        value = masked(features)
    torch.testing.assert_close(masked(features), value)
    own = torch.autograd.grad(masked.train()(features)[:, 0].sum(), features)[0]
    assert int((own == 0).sum()) == 6


def test_keeping_all_but_nothing_changes_little_and_keeping_little_changes_much(images):
    logits = images.model.logits(images.test.x)
    nearly, little = (
        make_defense({"name": "feature-masking", "keep": keep})(images.model, images.data, rng=_rng())
        for keep in (0.99, 0.05)
    )
    torch.testing.assert_close(nearly.logits(images.test.x), logits)
    assert float((little.logits(images.test.x) - logits).abs().mean()) > 0.1


def test_a_masked_network_can_be_trained_on(images):
    masked = make_defense("feature-masking")(images.model, images.data, rng=_rng())
    spec = {"name": "adversarial-training", "eps": 6.0, "unit": "grey level", "epochs": 1, "attack": "fgsm"}
    trained = make_defense(spec)(masked, images.data, rng=_rng())
    assert any(isinstance(part, MaskedHead) for part in trained.net.modules())


def test_a_network_that_ends_otherwise_is_incompatible(images):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with pytest.raises(Incompatible, match="feature-masking needs a network that ends in a linear layer, not Conv2d"):
        make_defense("feature-masking")(network_model("pixels", net, lambda x: x, {}), images.data, rng=_rng())


def test_pruned_activations_keep_their_mean_and_drop_small_ones_most():
    units = torch.tensor([[4.0, 1.0, 0.25, 0.0]]).expand(20_000, 4)
    drawn = pruned(units, 1.0, _rng())
    torch.testing.assert_close(drawn.mean(0), units[0], rtol=0.05, atol=0.02)
    kept = (drawn > 0).float().mean(0)
    share = units[0] / units[0].sum()
    torch.testing.assert_close(kept, 1 - (1 - share) ** 4, rtol=0.05, atol=0.01)


def test_each_look_is_another_draw_and_a_source_repeats_them(images):
    model = make_defense("randomized-activations")(images.model, images.data, rng=_rng())
    assert model.draw is not None
    looks = [model.draw(_rng(seed))(images.test.x) for seed in (0, 0, 1)]
    assert torch.equal(looks[0], looks[1])
    assert not torch.equal(looks[0], looks[2])
    assert torch.equal(model.logits(images.test.x), images.model.logits(images.test.x))
    assert not any(part._forward_hooks for part in model.net.modules())


def test_many_samples_drop_nothing(images):
    model = make_defense({"name": "randomized-activations", "samples": 1e6})(images.model, images.data, rng=_rng())
    torch.testing.assert_close(
        model.draw(_rng())(images.test.x), images.model.logits(images.test.x), rtol=1e-3, atol=1e-3
    )


def test_a_network_without_activations_is_incompatible(linear_model, images):
    with pytest.raises(Incompatible, match="found no activation layer to draw behind: it knows ReLU, LeakyReLU"):
        make_defense("randomized-activations")(linear_model(torch.ones(2, 64)), images.data, rng=_rng())


def test_what_has_no_network_is_incompatible(images):
    for name in ("feature-masking", "randomized-activations"):
        with pytest.raises(Incompatible, match="remote has no network to train"):
            make_defense(name)(Model(name="remote", logits=lambda x: x), images.data, rng=_rng())


def test_steep_logits_change_no_decision(images):
    model = make_defense("gradient-masking")(images.model, images.data, rng=_rng())
    assert torch.equal(model.logits(images.test.x).argmax(1), images.model.logits(images.test.x).argmax(1))
    with pytest.raises(Incompatible, match="those of a model that measures a value are values"):
        make_defense("gradient-masking")(replace(images.model, output="value"), images.data, rng=_rng())


def test_the_staircase_meets_the_straight_way_at_its_ends():
    low, high = torch.tensor(0.0), torch.tensor(10.0)
    x = torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0, -3.0, 12.0])
    # Three levels, 0, 5 and 10: values between go to the stair's ends or its middle, and those beyond stay.
    found = staircase(x, low, high, 3, 1000.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0, -3.0, 12.0]), atol=1e-4, rtol=0)
    assert staircase(torch.tensor([2.0, 3.0, 7.0, 8.0]), low, high, 3, 1000.0).tolist() == [0.0, 5.0, 5.0, 10.0]
