"""What every registered poison keeps."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.registry import SHELVES
from titer.training.weights import digest

POISONS = SHELVES["poisons"].all()
SMALLEST = {
    "gradient-matching": {"steps": 3},
    "concept-poisoning": {"steps": 3},
    "backdoor": {"trigger": "spike"},
}
BUDGET = {"images": {"eps": 8.0, "unit": "grey level"}, "tables": {"eps": 0.5, "unit": "sd"}}
TABLES_ONLY = {"implausible-profile"}
SHARE = 0.1
CASES = [
    (name, scene) for name in POISONS for scene in ("images", "tables") if scene == "tables" or name not in TABLES_ONLY
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def plugin(case):
    return POISONS[case[0]]


@pytest.fixture
def scene(case):
    return case[1]


@pytest.fixture
def toy(scene, request):
    return request.getfixturevalue(scene)


@pytest.fixture
def attack(plugin, scene, toy):
    def run(data=toy.data, model=toy.model, seed=0, **settings):
        known = {one.name for one in plugin.settings()}
        given = SMALLEST.get(plugin.name, {}) | (BUDGET[scene] if {"eps", "unit"} <= known else {})
        if plugin.name == "backdoor":
            given = given | {"trigger": "patch" if scene == "images" else "spike"}
        made = plugin.factory(**plugin.check(given | {"share": SHARE} | settings, plugin.name))
        return made(model, data, rng=torch.Generator().manual_seed(seed))

    return run


def test_marks_are_exactly_the_rows_that_differ(attack, toy):
    found, before = attack(), toy.data.train
    differs = (found.samples.x != before.x).flatten(1).any(1) | (found.samples.y != before.y)
    assert found.changed.dtype == torch.bool
    assert torch.equal(found.changed, differs)
    assert found.samples.ids == before.ids
    assert found.samples.patients == before.patients


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_share_is_kept(attack, toy, share):
    found = attack(share=share)
    assert 0 < int(found.changed.sum()) <= round(share * len(toy.data.train))
    assert int(found.changed.sum()) >= 0.9 * share * len(toy.data.train)


def test_rows_stay_in_the_domain(attack, toy):
    found = attack()
    for rule in toy.data.domain:
        assert bool(rule.contains(found.samples.x, toy.data.train.x).all()), rule.describe()
    assert bool(found.samples.x.isfinite().all())
    assert found.samples.x.dtype == toy.data.train.x.dtype
    assert found.samples.y.dtype == toy.data.train.y.dtype
    assert set(found.samples.y.tolist()) <= set(range(toy.data.classes))


def test_a_trigger_stays_in_the_domain_and_leaves_its_argument_alone(attack, toy):
    found, x = attack(), toy.test.x.clone()
    if found.trigger is not None:
        shown = found.trigger(x)
        assert torch.equal(x, toy.test.x)
        assert bool((shown != x).flatten(1).any(1).any())
        for rule in toy.data.domain:
            assert bool(rule.contains(shown, x).all()), rule.describe()


def test_what_it_wants_can_be_judged(attack, toy):
    found = attack()
    if found.trigger is not None or found.aimed is not None:
        assert found.target is not None
    assert found.target is None or 0 <= found.target < toy.data.classes
    assert found.source is None or found.source != found.target
    if found.aimed is not None:
        assert not bool((found.aimed.y == found.target).any())


def test_it_leaves_its_arguments_alone_and_repeats(attack, toy):
    state, weights = torch.random.get_rng_state(), digest(toy.model.net.state_dict())
    train = toy.data.train.digest()
    first, again, other = attack(), attack(), attack(seed=1)
    assert first.samples.digest() == again.samples.digest()
    assert first.samples.digest() != other.samples.digest()
    assert toy.data.train.digest() == train
    assert digest(toy.model.net.state_dict()) == weights
    assert not any(one.requires_grad for one in toy.model.net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state), "randomness is an argument"


def test_a_larger_share_adds_to_a_smaller_one(attack):
    small, large = attack(share=0.02), attack(share=0.1)
    assert not bool((small.changed & ~large.changed).any())


def test_a_share_of_no_row_is_refused(attack, toy):
    few = replace(toy.data, train=toy.data.train.take(range(40)))
    with pytest.raises(Incompatible, match="no row"):
        attack(data=few, share=0.001)


def test_a_class_with_too_few_rows_is_refused(attack, plugin, toy):
    if not {"target"} <= {one.name for one in plugin.settings()}:
        pytest.skip("it has no class to choose")
    y = toy.data.train.y
    kept = torch.cat([(y == 0).nonzero().flatten()[:2], (y == 1).nonzero().flatten()])
    few = replace(toy.data, train=toy.data.train.take(kept.tolist()))
    source = {"source": 0, "target": 1} if plugin.name in ("label-flip", "backdoor") else {"target": 0}
    with pytest.raises(Incompatible, match="2 "):
        attack(data=few, share=0.2, **source)


def test_a_class_that_does_not_exist_is_refused(attack, plugin):
    if "target" not in {one.name for one in plugin.settings()}:
        pytest.skip("it has no class to choose")
    with pytest.raises(SpecError, match=r"target = 7 is not allowed: classes are 0 to 1"):
        attack(target=7)


def test_rows_without_a_class_are_refused(attack, toy):
    with pytest.raises(Incompatible, match="output of these data is 'value'"):
        attack(data=replace(toy.data, output="value"))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_outside_its_limits_is_refused(plugin, share):
    given = BUDGET["images"] if "eps" in {one.name for one in plugin.settings()} else {}
    with pytest.raises(SpecError, match="share"):
        plugin.check(given | {"share": share}, plugin.name)


def test_it_says_what_it_is(plugin):
    assert len(plugin.title) > 3
    assert plugin.paper
    assert any(one.startswith("NISTAML.") for one in plugin.threat_ids)
    assert any(one.startswith("AML.T") for one in plugin.threat_ids)
