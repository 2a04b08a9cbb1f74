"""Detectors at work: a guarded model, thresholds on fresh data, and an attacker who knows of the detectors."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from tests.conftest import Toy

from titer.assess.judge import attack_rows
from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.plugins import make, make_attack, make_detector
from titer.core.protocols import Alarm, TrainingData
from titer.core.record import Recipe
from titer.engine.watching import Watch, calibrated, evading, guarded, scores, weighted
from titer.threats.goals import AnyError
from titer.threats.output_goals import AnyFinding
from titer.threats.unseen import Unseen, unseen
from titer.training.loop import CrossEntropy, fit

PGD = {"name": "pgd", "steps": 30, "step": 0.1}
DETECTORS = {
    "feature-squeezing": {"name": "feature-squeezing"},
    "reconstruction": {"name": "reconstruction", "epochs": 5},
}


def _fitted(toy, spec, seed=0):
    return make_detector(spec)(toy.model, toy.data, rng=torch.Generator().manual_seed(seed))


def _first_value(threshold=0.0):
    alarm = Alarm(name="first", score=lambda x: x[:, 0])
    return Watch(alarm=alarm, threshold=threshold, spread=2.0)


def test_a_guarded_model_holds_back_exactly_what_raises_the_alarm(linear_model):
    model = linear_model(torch.tensor([[1.0, 5.0], [0.0, -5.0]]))
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [0.0, 1.0], [float("nan"), 1.0]])
    logits = guarded(model, [_first_value()]).logits(x)
    assert logits[:4].argmax(1).tolist() == [2, 0, 1, 0]
    assert _first_value().raised(x).tolist() == [True, False, False, False, True]
    decision = guarded(model, [_first_value()]).limited("decision").logits(x[:4])
    assert decision.argmax(1).tolist() == [2, 0, 1, 0]


def test_a_find_counts_only_where_the_model_is_wrong_and_no_alarm_is_raised(linear_model):
    model = linear_model(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    y = torch.zeros(4, dtype=torch.int64)
    goal, logits = Unseen(inner=AnyError(), output="classes"), guarded(model, [_first_value()]).logits(x)
    assert goal.won(logits, y).tolist() == [False, False, False, True]
    for weight in (None, 0.5, 3.0):
        chosen = replace(goal, weight=weight)
        assert ((chosen.margin(logits, y) > 0) == goal.won(logits, y)).all()
        assert int(chosen.loss(logits, y).argmax()) == 3


def test_findings_have_one_more_answer(linear_model):
    model = replace(linear_model(torch.tensor([[0.0, 1.0], [0.0, -1.0]])), output="labels")
    logits = guarded(model, [_first_value()]).logits(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    goal = Unseen(inner=AnyFinding(), output="labels")
    assert goal.won(logits, torch.tensor([[0, 0], [0, 0]])).tolist() == [False, True]


@pytest.mark.parametrize("output", ["value", "mask"])
def test_other_outputs_and_no_detector_are_refused(linear_model, output):
    model = replace(linear_model(torch.eye(2)), output=output)
    with pytest.raises(Incompatible, match="held back"):
        guarded(model, [_first_value()])
    with pytest.raises(Incompatible, match="one detector or more"):
        guarded(model, [])


def test_the_slope_is_the_stand_ins_and_the_value_the_scores():
    alarm = Alarm(name="steps", score=lambda x: x.round()[:, 0], smooth=lambda x: 3 * x[:, 0])
    watch = Watch(alarm=alarm, threshold=0.0, spread=1.0)
    x = torch.tensor([[1.3]], requires_grad=True)
    value = watch.excess(x, differentiable=True)
    assert float(value.detach()) == pytest.approx(1.0)
    assert float(torch.autograd.grad(value.sum(), x)[0]) == 3.0


def test_a_randomised_model_stays_randomised(linear_model):
    model = linear_model(torch.eye(2))
    drawn = replace(model, draw=lambda rng: lambda x: model.logits(x + torch.randn(x.shape, generator=rng)))
    seen = guarded(drawn, [_first_value()])
    assert seen.draw is not None
    one, two = (seen.draw(torch.Generator().manual_seed(seed))(torch.zeros(1, 2)) for seed in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_thresholds_hold_on_fresh_clean_rows(conv_images, rate):
    alarms = [_fitted(conv_images, {"name": name}) for name in ("shift", "feature-squeezing", "nearest-neighbour")]
    together = calibrated(alarms, conv_images.data.validation.x, rate)
    raised = torch.stack([watch.raised(conv_images.test.x) for watch in together]).any(0)
    assert int(raised.sum()) <= binom.ppf(0.9999, 100, 2 * rate)  # a calibration of 100 rows varies too
    for watch in calibrated(alarms[:1], conv_images.data.validation.x, rate):
        own = watch.raised(conv_images.data.validation.x)
        assert int(own.sum()) <= rate * 101


def test_weighted_scores_are_the_weighted_mean_of_standard_scores(conv_images):
    alarms = [_fitted(conv_images, {"name": name}) for name in ("shift", "feature-squeezing")]
    clean = conv_images.data.validation.x
    first = weighted(alarms, clean, [1.0, 0.0])
    x = conv_images.test.x
    order = torch.from_numpy(scores(alarms, x)[:, 0]).argsort()
    assert torch.equal(torch.from_numpy(scores([first], x)[:, 0]).argsort(), order)
    assert first.name == "shift + feature-squeezing"
    assert first.smooth is not None
    with pytest.raises(Incompatible, match="weights"):
        weighted(alarms, clean, [1.0])


@pytest.fixture(scope="module")
def chest(titer_data):
    """A small convolutional network on a third of the chest X-rays, and thirty test images that it gets right."""
    del titer_data
    data = make("modalities", "chest-xray")()
    recipe = Recipe(epochs=5, batch_size=64, learning_rate=5e-3)
    train = TrainingData(
        train=data.fixed["train"].take(range(0, 4682, 3)),
        validation=data.fixed["validation"],
        classes=2,
        domain=data.domain,
        units={},
        recipe=recipe,
        value_range=data.value_range,
    )
    torch.manual_seed(0)
    net = make("networks", "small-cnn")((1, 28, 28), 2)
    start = network_model("small-cnn", net, lambda x: (x - 127.5) / 60, {"build": "test"})
    model = fit(start, net, train, CrossEntropy(), seed=0)
    rows = data.fixed["test"].take(range(100))
    right = (model.logits(rows.x).argmax(1) == rows.y).nonzero().flatten()[:30]
    return Toy(model, train, rows.take(right.tolist()))


@pytest.mark.parametrize("name", DETECTORS)
def test_who_knows_the_detector_evades_it_far_more_often(chest, image_threat, name):
    x, y, threat = chest.test.x, chest.test.y, image_threat("linf", 8.0)
    watches = calibrated([_fitted(chest, DETECTORS[name])], chest.data.validation.x, 0.05)
    plain = attack_rows(make_attack(PGD), chest.model, x, y, threat)
    raised = watches[0].raised(plain.proposal.x_adv)
    unnoticed = float((plain.verdict.won & ~raised).float().mean())
    known = attack_rows(evading(make_attack(PGD)), guarded(chest.model, watches), x, y, unseen(threat, "classes"))
    found = known.proposal.x_adv
    wrong = chest.model.logits(found).argmax(1) != y
    assert torch.equal(known.verdict.won, wrong & ~watches[0].raised(found))
    assert bool(threat.contains(found, x).all())
    assert float(known.verdict.won.float().mean()) >= max(2 * unnoticed, unnoticed + 0.15)


def test_an_evading_attack_needs_its_goal_and_a_registered_attack(conv_images, image_threat):
    x, y = conv_images.test.x[:2], conv_images.test.y[:2]
    with pytest.raises(Incompatible, match="names the detectors"):
        evading(make_attack(PGD))(
            conv_images.model, x, y, image_threat("linf", 8.0), rng=torch.Generator().manual_seed(0)
        )
    with pytest.raises(Incompatible, match="registered"):
        evading(lambda *_args, **_more: x)


@pytest.mark.parametrize("spec", ["fgsm", {"name": "apgd", "steps": 10}, {"name": "fmn", "steps": 10}, "square"])
def test_any_attack_of_the_shelf_runs_on_a_guarded_model(conv_images, image_threat, spec):
    toy = conv_images
    watches = calibrated([_fitted(toy, {"name": "shift"})], toy.data.validation.x, 0.05)
    spec = {"name": "square", "queries": 50} if spec == "square" else spec
    threat = unseen(image_threat("linf", 12.0), "classes")
    minimal = spec != "fgsm" and spec["name"] == "fmn"
    seen = guarded(toy.model, watches)
    done = attack_rows(evading(make_attack(spec)), seen, toy.test.x[:10], toy.test.y[:10], threat, minimal=minimal)
    assert done.verdict.won.shape == (10,)


def test_the_same_seed_finds_the_same(conv_images, image_threat):
    watches = calibrated([_fitted(conv_images, {"name": "feature-squeezing"})], conv_images.data.validation.x, 0.05)
    seen, threat = guarded(conv_images.model, watches), unseen(image_threat("linf", 8.0), "classes")
    x, y, attack = conv_images.test.x[:8], conv_images.test.y[:8], evading(make_attack(PGD), (None, 3.0))
    first, again = (attack(seen, x, y, threat, rng=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)


def test_scores_alone_suffice_to_guard(conv_images):
    remote = Model(name="remote", logits=conv_images.model.logits).limited("scores")
    alarm = make_detector("feature-squeezing")(remote, conv_images.data, rng=torch.Generator())
    watches = calibrated([alarm], conv_images.data.validation.x, 0.05)
    assert guarded(remote, watches).surrogate is None
