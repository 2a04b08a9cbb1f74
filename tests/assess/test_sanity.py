"""Doubts: each check passes on an honest model, and fails on one that was made to flatter."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from titer.assess import sanity
from titer.assess.agreement import ALARM, FAIL, NOT_APPLICABLE, PASS, Kind, compare_outcomes, confirmed
from titer.assess.sanity import PROBES, probe
from titer.core.model import Model
from titer.threats.rules import MutableMask

EPS = 6.0


def _results(model, toy, threat):
    return {one["check"]: one for one in probe(model, toy.test.x, toy.test.y, threat, seed=0)}


def _failed(results):
    return {name for name, one in results.items() if one["result"] == FAIL}


@pytest.fixture(scope="module")
def honest(images, image_threat):
    return _results(images.model, images, image_threat("linf", EPS))


def test_an_honest_model_passes_every_probe(honest):
    assert set(honest) == set(PROBES)
    assert {name: one["result"] for name, one in honest.items()} == dict.fromkeys(PROBES, PASS)
    assert all(one["threat_family"] == "linf" for one in honest.values())


@pytest.mark.parametrize("factor", [1e4, 1e6])
def test_logits_that_saturate_the_loss_are_seen(factor, images, image_threat):
    model = Model(name="loud", logits=lambda x: factor * images.model.logits(x))
    results = _results(model, images, image_threat("linf", EPS))
    assert _failed(results) == {"gradients-not-zero"}
    assert results["gradients-not-zero"]["value"] > 0.9
    assert "gradient vanishes" in results["gradients-not-zero"]["message"]


def test_a_model_that_hides_its_gradients_is_seen(images, image_threat):
    def stairs(x):
        """Round each grey level to even ones; what flows back is exactly zero."""
        return images.model.logits((x / 2).round() * 2).detach() + 0 * x.flatten(1)[:, :2]

    failed = _failed(_results(Model(name="stairs", logits=stairs), images, image_threat("linf", 0.5)))
    assert {"gradients-not-zero", "loss-rises-along-the-attack"} <= failed


def test_a_model_that_no_budget_breaks_is_seen(images, image_threat):
    part = replace(images, test=images.test.take(range(20)))
    known, labels = part.test.x.flatten(1), part.test.y

    def recalls(x):
        """Answer with the label of the nearest known patient: right as far as the attack can go, without a slope."""
        nearest = (x.detach().flatten(1).unsqueeze(1) - known).abs().amax(2).argmin(1)
        return torch.nn.functional.one_hot(labels[nearest], 2).float() + 0 * x.flatten(1)[:, :1]

    failed = _failed(_results(Model(name="recalls", logits=recalls), part, image_threat("linf", 0.01)))
    assert failed == {
        "gradients-not-zero",
        "loss-rises-along-the-attack",
        "success-reaches-100-percent-as-eps-grows",
    }


def test_randomness_that_is_not_declared_is_seen(images, image_threat):
    rng = torch.Generator().manual_seed(0)

    def logits(x):
        return images.model.logits(x) + 0.01 * torch.randn((len(x), 2), generator=rng)

    results = _results(Model(name="noisy", logits=logits), images, image_threat("linf", EPS))
    assert results["randomness-declared"]["result"] == FAIL
    assert "declares no randomness" in results["randomness-declared"]["message"]


def test_randomness_that_is_declared_passes(images, image_threat):
    def draw(rng):
        return lambda x: images.model.logits(x) + 0.01 * torch.randn((len(x), 2), generator=rng)

    model = Model(name="noisy", logits=images.model.logits, draw=draw)
    part = replace(images, test=images.test.take(range(20)))
    assert _results(model, part, image_threat("linf", EPS))["randomness-declared"]["result"] == PASS


def test_an_attack_that_has_not_converged_is_seen(images, image_threat):
    weak = {"name": "bim", "steps": 2, "step": 0.02}
    found = sanity.probe(images.model, images.test.x, images.test.y, image_threat("linf", EPS), seed=0, usual=weak)
    results = {one["check"]: one for one in found}
    assert results["more-steps-no-worse"]["result"] == FAIL
    assert results["more-steps-no-worse"]["value"] > 0.2


def test_the_plans_longest_search_is_the_one_doubted():
    specs = [{"name": "fgsm"}, {"name": "bim", "steps": 30, "step": 0.1}, {"name": "pgd", "steps": 20, "restarts": 2}]
    assert sanity.longest_search(specs)["name"] == "pgd"
    assert sanity.longest_search(specs[:1])["steps"] == 40


def test_a_masked_threat_need_not_reach_everyone(images, image_threat):
    results = _results(images.model, images, image_threat("linf", EPS, mask=True))
    assert results["success-reaches-100-percent-as-eps-grows"]["result"] == NOT_APPLICABLE


def _one_half(images, image_threat, weight):
    """Return the probes of a model that reads `weight` of the left half of each image, which alone may change."""
    threat = image_threat("linf", EPS)
    shape = images.test.x.shape[1:]
    left = (torch.arange(shape[-1]) < shape[-1] // 2).expand(shape)
    threat = replace(threat, domain=(*threat.domain, MutableMask(mask=left)))
    reads = torch.where(left, weight, 1.0)
    mean = images.test.x.mean(0)
    model = Model(name="half", logits=lambda x: images.model.logits(mean + reads * (x - mean)))
    return _results(model, images, threat)


def test_a_model_that_is_blind_to_what_may_change_is_not_doubted_for_it(images, image_threat):
    results = _one_half(images, image_threat, 0.0)
    assert {one["result"] for one in results.values()} == {NOT_APPLICABLE}
    assert "reads none of the values" in results["loss-rises-along-the-attack"]["message"]


def test_a_model_that_reads_a_little_of_what_may_change_is_probed(images, image_threat):
    results = _one_half(images, image_threat, 0.01)
    assert results["gradients-not-zero"]["result"] == PASS
    assert results["randomness-declared"]["result"] == PASS


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_probes_of_the_gradient_do_not_apply_without_it(access, images, image_threat):
    results = _results(images.model, images, image_threat("linf", EPS, access=access))
    assert results["gradients-not-zero"]["result"] == NOT_APPLICABLE
    assert results["randomness-declared"]["result"] == PASS


def test_a_model_that_gets_nothing_right_is_not_applicable(images, image_threat):
    wrong = Model(name="wrong", logits=lambda x: -images.model.logits(x))
    right = images.model.logits(images.test.x).argmax(1) == images.test.y
    part = replace(images, test=images.test.take(right.nonzero().flatten()))
    results = _results(wrong, part, image_threat("linf", EPS))
    assert {one["result"] for one in results.values()} == {NOT_APPLICABLE}


def _outcomes(rows):
    """Expand (defense, source, attack, share won) into 100 patients each."""
    return pd.DataFrame(
        [
            {
                "model": "m",
                "defense": defense,
                "source": source,
                "attack": attack,
                "threat_family": "linf",
                "threat": "linf 1/255",
                "trial": 0,
                "sample_id": i,
                "won": i < won,
            }
            for defense, source, attack, won in rows
            for i in range(100)
        ]
    )


def _compared(rows):
    checks = compare_outcomes(_outcomes(rows), KINDS)
    return {(one["defense"], one["check"]): one["result"] for one in checks}


KINDS = {
    "fgsm": Kind(single_step=True),
    "pgd": Kind(effort=40),
    "apgd": Kind(effort=100),
    "fmn": Kind(minimal=True, effort=100),
    "square": Kind(access="scores"),
    "universal": Kind(joint=True, effort=1000),
}
ITERATIVE, TRANSFER = "iterative-no-worse-than-single-step", "white-box-no-worse-than-transfer"


@pytest.mark.parametrize(("single", "many", "result"), [(50, 80, PASS), (50, 50, PASS), (53, 50, FAIL)])
def test_many_steps_must_not_do_worse_than_one(single, many, result):
    checks = _compared([("none", "none", "fgsm", single), ("none", "none", "pgd", many)])
    assert checks[("none", ITERATIVE)] == result


def test_a_plan_without_a_pair_has_nothing_to_compare():
    assert _compared([("none", "none", "pgd", 50)])[("none", ITERATIVE)] == NOT_APPLICABLE


@pytest.mark.parametrize(("adaptive", "borrowed", "result"), [(40, 10, PASS), (10, 40, FAIL), (40, 41, PASS)])
def test_knowing_the_defence_must_not_do_worse_than_borrowing(adaptive, borrowed, result):
    checks = _compared(
        [("none", "none", "pgd", 90), ("jpeg", "jpeg", "pgd", adaptive), ("jpeg", "none", "pgd", borrowed)]
    )
    assert checks[("jpeg", TRANSFER)] == result
    assert ("none", TRANSFER) not in checks


def test_without_borrowed_inputs_there_is_nothing_to_compare():
    checks = _compared([("jpeg", "jpeg", "pgd", 40)])
    assert checks[("jpeg", TRANSFER)] == NOT_APPLICABLE


def test_attacks_count_together_for_each_patient():
    # Two attacks that fool different patients are together as strong as one that fools all of them.
    frame = _outcomes([("jpeg", "jpeg", "a", 50), ("jpeg", "jpeg", "b", 0), ("jpeg", "none", "a", 100)])
    frame.loc[(frame["attack"] == "b") & (frame["sample_id"] >= 50), "won"] = True
    checks = compare_outcomes(frame, {})
    assert {one["check"]: one["result"] for one in checks}[TRANSFER] == PASS


BLACK_BOX, EFFORT = "white-box-no-worse-than-black-box", "more-effort-no-worse"
LEAST = "least-perturbation-no-worse-than-fixed-budget"


@pytest.mark.parametrize(("white", "black", "result"), [(40, 10, PASS), (40, 41, PASS), (40, 50, FAIL)])
def test_seeing_the_gradient_must_not_do_worse_than_scores(white, black, result):
    """Masked gradients: the random search finds what the gradient does not show."""
    checks = _compared([("none", "none", "pgd", white), ("none", "none", "square", black)])
    assert checks[("none", BLACK_BOX)] == result


@pytest.mark.parametrize(("longer", "shorter", "result"), [(50, 40, PASS), (50, 51, PASS), (50, 60, ALARM)])
def test_attacks_of_one_family_keep_their_order(longer, shorter, result):
    checks = _compared([("none", "none", "apgd", longer), ("none", "none", "pgd", shorter)])
    assert checks[("none", EFFORT)] == result


@pytest.mark.parametrize(("least", "fixed", "result"), [(50, 40, PASS), (50, 54, PASS), (20, 60, ALARM)])
def test_a_least_perturbation_attack_that_a_fixed_budget_beats_is_told(least, fixed, result):
    """A C&W without its search, or a stuck FMN, of some peers: they would show here."""
    checks = _compared([("none", "none", "fmn", least), ("none", "none", "pgd", fixed)])
    assert checks[("none", LEAST)] == result


def test_one_pattern_for_everyone_is_held_to_no_order():
    checks = _compared([("none", "none", "universal", 5), ("none", "none", "pgd", 60)])
    assert ("none", EFFORT) not in checks


@pytest.mark.parametrize(
    ("wins", "unconfirmed", "randomised", "result"),
    [
        (0, 0, False, NOT_APPLICABLE),
        (100, 0, False, PASS),
        (100, 1, False, ALARM),
        (100, 4, True, PASS),
        (100, 9, True, ALARM),
    ],
)
def test_a_success_that_a_second_look_does_not_confirm_is_told(wins, unconfirmed, randomised, result):
    assert confirmed("pgd", wins, unconfirmed, randomised=randomised)["result"] == result
