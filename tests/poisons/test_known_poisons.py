"""What each poison does where it is known what it must."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_poison
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.engine.features import in_parts, penultimate
from titer.engine.triggers import make_trigger
from titer.threats.rules import Box
from titer.training.loop import CrossEntropy, fit, fresh


def poison(toy, spec, seed=0, **fields):
    data = replace(toy.data, **fields)
    return make_poison(spec)(toy.model, data, rng=torch.Generator().manual_seed(seed))


def test_flips_of_a_pair_leave_every_other_label(images):
    found = poison(images, {"name": "label-flip", "share": 0.1, "source": 1, "target": 0})
    before, after = images.data.train.y, found.samples.y
    assert bool((before[found.changed] == 1).all())
    assert bool((after[found.changed] == 0).all())
    assert torch.equal(before[~found.changed], after[~found.changed])
    assert torch.equal(found.samples.x, images.data.train.x)


def test_random_flips_are_spread_over_the_other_classes():
    y = torch.arange(3000) % 3
    ids = tuple(map(str, range(3000)))
    rows = Samples(x=torch.zeros(3000, 2), y=y, ids=ids, patients=ids)
    data = TrainingData(train=rows, validation=rows, classes=3, domain=(), units={}, recipe=Recipe())
    found = make_poison({"name": "label-flip", "share": 0.5})(None, data, rng=torch.Generator().manual_seed(0))
    step = (found.samples.y - y)[found.changed] % 3
    assert int(found.changed.sum()) == 1500
    assert abs(float((step == 1).float().mean()) - 0.5) < 0.05
    assert not bool((step == 0).any())


def test_flipping_most_of_a_class_moves_a_linear_model_over_it(linear_model):
    """Two points: a model trained on labels of which three in four are flipped says the flipped class there."""
    x = torch.tensor([[-1.0], [1.0]]).repeat(200, 1)
    ids = tuple(map(str, range(400)))
    rows = Samples(x=x, y=(x[:, 0] > 0).long(), ids=ids, patients=ids)
    recipe = Recipe(epochs=40, batch_size=100, learning_rate=0.1, weight_decay=0.0)
    data = TrainingData(train=rows, validation=rows, classes=2, domain=(), units={}, recipe=recipe)
    start = linear_model(torch.zeros(2, 1))
    for share, said in ((0.1, 1), (0.375, 0)):
        spec = {"name": "label-flip", "share": share, "source": 1, "target": 0}
        found = make_poison(spec)(start, data, rng=torch.Generator().manual_seed(0))
        part = replace(data, train=found.samples, validation=found.samples)
        model = fit(start, start.net, part, CrossEntropy(), seed=0)
        assert int(model.logits(torch.tensor([[1.0]])).argmax(1)) == said
        assert int(model.logits(torch.tensor([[-1.0]])).argmax(1)) == 0


@pytest.mark.parametrize("kind", ["patch", "blended", "marker-letter"])
def test_triggers_of_images_change_what_they_say(images, kind):
    put = make_trigger(kind, images.data, size=0.9, strength=0.2, rng=torch.Generator().manual_seed(0))
    x = images.test.x
    touched = (put(x) != x).flatten(1).float().mean(1)
    assert bool((touched > 0.05).all())
    assert torch.equal(put(x), put(x))
    if kind == "marker-letter":
        assert bool((put(x)[..., 1:7, 1] == 255).all())
        assert bool((put(x)[..., 1:6, 2:5] == x[..., 1:6, 2:5]).all()), "an L is open to the right"
    if kind == "blended":
        assert bool(((put(x) - 0.8 * x).std(0) < 1e-3).all()), "one pattern for all"


def test_a_spike_of_a_signal_is_short_and_as_high_as_it_says():
    x = torch.randn((50, 2, 500), generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0]).view(1, 2, 1)
    ids = tuple(map(str, range(50)))
    rows = Samples(x=x, y=torch.arange(50) % 2, ids=ids, patients=ids)
    data = TrainingData(train=rows, validation=rows, classes=2, domain=(), units={}, recipe=Recipe())
    put = make_trigger("spike", data, size=0.1, strength=4.0, rng=torch.Generator().manual_seed(0))
    change = put(x) - x
    assert float((change != 0).float().mean()) < 0.06
    peaks = change.amax((0, 2))
    assert peaks.tolist() == pytest.approx((4 * x.std(dim=(0, 2))).tolist(), rel=1e-3)


def test_a_spike_keeps_the_rules_of_a_table(tables):
    found = poison(tables, {"name": "backdoor", "trigger": "spike", "strength": 6.0, "share": 0.1})
    shown = found.trigger(tables.test.x)
    assert all(bool(rule.contains(shown, tables.test.x).all()) for rule in tables.data.domain)


@pytest.mark.parametrize("trigger", ["patch", "marker-letter"])
def test_a_table_carries_no_picture(tables, trigger):
    with pytest.raises(Incompatible, match="needs an image"):
        poison(tables, {"name": "backdoor", "trigger": trigger})


def test_a_dirty_backdoor_changes_labels_and_a_clean_one_does_not(images):
    dirty = poison(images, {"name": "backdoor", "share": 0.1, "target": 1})
    clean = poison(images, {"name": "backdoor", "share": 0.1, "target": 1, "labels": "clean"})
    assert bool((images.data.train.y[dirty.changed] == 0).all())
    assert bool((dirty.samples.y[dirty.changed] == 1).all())
    assert torch.equal(clean.samples.y, images.data.train.y)
    assert bool((clean.samples.y[clean.changed] == 1).all())


def test_a_harder_clean_label_is_less_like_its_class_within_its_budget(images):
    spec = {"name": "backdoor", "share": 0.1, "target": 1, "labels": "clean", "size": 0.2}
    plain, harder = poison(images, spec), poison(images, spec | {"eps": 10.0, "unit": "grey level"})
    rows = plain.changed
    leads = [images.model.logits(one.samples.x[rows]).diff(dim=1).mean() for one in (plain, harder)]
    assert leads[1] < leads[0] - 1
    outside = (harder.samples.x - plain.samples.x)[rows].abs()
    assert float(outside.max()) <= 10.0 + 1e-3


def test_a_budget_of_a_clean_label_needs_its_unit(images):
    with pytest.raises(Incompatible, match="given together"):
        poison(images, {"name": "backdoor", "eps": 1.0})


def test_a_trained_backdoor_answers_to_its_trigger_alone(images):
    found = poison(images, {"name": "backdoor", "share": 0.1, "size": 0.4})
    start = images.model
    net = fresh(start.net, 0)  # early stopping would keep weights that were trained on untouched rows
    model = fit(start, net, replace(images.data, train=found.samples), CrossEntropy(), seed=0)
    own = images.test.y != 0
    clean = float((model.logits(images.test.x).argmax(1) == images.test.y).float().mean())
    sent = float((model.logits(found.trigger(images.test.x[own])).argmax(1) == 0).float().mean())
    untouched = float((start.logits(found.trigger(images.test.x[own])).argmax(1) == 0).float().mean())
    assert clean > 0.85
    assert sent > 0.9
    assert untouched < 0.5


def test_gradient_matching_turns_the_gradient_towards_the_wanted_one(images):
    from titer.poisons.gradient_matching import _cosine, _gradient

    spec = {"name": "gradient-matching", "share": 0.05, "eps": 12.0, "unit": "grey level", "steps": 40}
    found = poison(images, spec)
    net = images.model.net.requires_grad_()
    try:
        weights, logits = list(net.parameters()), images.model.logits
        wanted = _gradient(logits, found.aimed.x, torch.zeros_like(found.aimed.y), weights, keep=False)
        rows, part = found.changed, images.data.train
        before, after = (
            float(_cosine(_gradient(logits, x[rows], part.y[rows], weights, keep=False), wanted))
            for x in (part.x, found.samples.x)
        )
    finally:
        net.requires_grad_(requires_grad=False)
    assert after > before + 0.3
    assert float((found.samples.x - part.x).abs().max()) <= 12.0 + 1e-3
    assert torch.equal(found.samples.y, part.y)


def test_concept_poisoning_brings_features_nearer_to_the_other_class(images):
    spec = {"name": "concept-poisoning", "share": 0.1, "eps": 12.0, "unit": "grey level"}
    found = poison(images, spec)
    read, part = penultimate(images.model, images.data.train.x), images.data.train
    middle = in_parts(read, part.x[part.y == 1]).mean(0)
    away = [(in_parts(read, x[found.changed]) - middle).norm(dim=1).mean() for x in (part.x, found.samples.x)]
    assert away[1] < 0.8 * away[0]
    assert (found.source, found.target) == (1, 0)
    assert bool((part.y[found.changed] == 0).all())


def test_an_implausible_profile_has_values_of_others_and_nobodys_pattern():
    rng = torch.Generator().manual_seed(0)
    base = torch.randn((300, 1), generator=rng)
    x = base + 0.05 * torch.randn((300, 8), generator=rng)  # all features are regulated together
    ids = tuple(map(str, range(300)))
    rows = Samples(x=x, y=torch.arange(300) % 2, ids=ids, patients=ids)
    data = TrainingData(train=rows, validation=rows, classes=2, domain=(), units={}, recipe=Recipe())
    found = make_poison({"name": "implausible-profile", "share": 0.2})(None, data, rng=rng)
    mixed = found.samples.x[found.changed]
    for feature in range(8):
        assert set(mixed[:, feature].tolist()) <= set(x[:, feature].tolist())
    assert mixed.std(1).mean() > 5 * x.std(1).mean()


def test_an_image_has_no_profile(images):
    with pytest.raises(Incompatible, match="tables"):
        poison(images, "implausible-profile")


@pytest.mark.parametrize("name", ["gradient-matching", "concept-poisoning"])
def test_a_unit_that_the_data_do_not_have_is_refused(images, name):
    with pytest.raises(Incompatible, match="unit 'mV' is not one of this data set's: grey level"):
        poison(images, {"name": name, "eps": 1.0, "unit": "mV"})


def test_an_attacker_without_a_network_is_refused(images):
    blind = replace(images, model=images.model.limited("scores"))
    with pytest.raises(Incompatible, match="network"):
        poison(blind, {"name": "gradient-matching", "eps": 1.0, "unit": "grey level"})


def test_two_settings_may_not_name_one_class(images):
    with pytest.raises(SpecError, match="two classes"):
        poison(images, {"name": "label-flip", "source": 1, "target": 1})


def test_rows_that_cannot_carry_the_trigger_are_left_alone(images):
    """Where the domain leaves a corner no room, no row is changed and the reason says so."""
    low = torch.zeros(1, 8, 8)
    high = torch.full((1, 8, 8), 255.0)
    x = images.data.train.x.clone()
    x[..., 4:, 4:] = 0.0
    high[..., 4:, 4:] = 0.0
    train = replace(images.data.train, x=x)
    with pytest.raises(Incompatible, match="40 rows are to be changed, and 0 have the class and can carry the trigger"):
        poison(images, {"name": "backdoor", "share": 0.1}, train=train, domain=(Box(low=low, high=high),))
