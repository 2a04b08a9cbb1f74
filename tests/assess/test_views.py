"""What the judge reports of findings, values and masks, and how the outcomes table tells it."""

import numpy as np
import pytest
import torch

from titer.assess.judge import attack_rows, predict, propose, reached, verdict
from titer.assess.views import View, as_columns
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.naming import goal

NAMES = ("nodule", "mass")


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _model(output):
    """A model that returns its input as its logits: two findings, one value, or masks of two classes."""
    if output == "value":
        return Model(name="m", logits=lambda x: x[:, :1], output="value")
    return Model(name="m", logits=lambda x: x, output=output)


def _threat(output, name, eps=1.0, names=NAMES, **fields):
    budget = ball("linf", eps, torch.tensor(1.0), "unit")
    return Threat(family="linf", budget=budget, domain=(), goal=goal(name, names, "here", output, 2.0), **fields)


FINDINGS = torch.tensor([[0.5, -3.0], [0.5, 0.5], [-0.5, -0.5], [-3.0, 3.0]])
TRUTH = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 1]])


def _columns(output, threat, x, y, *, attack="pgd", minimal=False):
    judged = attack_rows(make_attack(attack), _model(output), x, y, threat, minimal=minimal)
    view = View(output=output, classes=NAMES, tolerance=2.0, goal=threat.goal)
    return judged, as_columns(judged.verdict, judged.clean, y, judged.proposal, view, range(len(x)))


def test_findings_are_judged_together_under_any_error():
    judged, columns = _columns("labels", _threat("labels", "any-error"), FINDINGS, TRUTH)
    assert judged.clean.reported.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert columns["clean_prediction"].tolist() == [0, 0, 0, 1]
    assert columns["clean_error"].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert columns["won"].tolist() == [True] * 4
    assert columns["adversarial_prediction"].tolist() == [1] * 4
    assert bool((columns["adversarial_error"] >= 1).all())
    assert judged.proposal.attacked.tolist() == [True, True, True, False]


def test_one_finding_is_judged_by_itself_where_it_is_there():
    judged, columns = _columns("labels", _threat("labels", "hide:nodule"), FINDINGS, TRUTH)
    assert columns["label"].tolist() == [1, 1, 0, 1]
    assert columns["eligible"].tolist() == [True, True, False, True]
    assert judged.proposal.attacked.tolist() == [True, True, False, False]
    assert columns["won"].tolist() == [True, True, False, True]
    assert columns["clean_prediction"].tolist() == [1, 1, 0, 0]
    assert columns["adversarial_prediction"].tolist() == [0, 0, 0, 0]
    chances = np.array(columns["clean_probabilities"])
    np.testing.assert_allclose(chances[:, 1], torch.sigmoid(FINDINGS[:, 0]), rtol=1e-6)
    np.testing.assert_allclose(chances.sum(1), 1.0, rtol=1e-6)


def test_rows_that_a_goal_does_not_apply_to_cost_nothing_and_are_never_found():
    threat = _threat("labels", "invent:mass", eps=9.0)
    judged, columns = _columns("labels", threat, FINDINGS, TRUTH, attack="fmn", minimal=True)
    assert columns["eligible"].tolist() == [True, False, True, False]
    assert columns["forwards"].tolist()[1::2] == [0.0, 0.0]
    assert columns["won"].tolist() == [True, False, True, False]
    assert columns["distance_linf"].tolist()[1::2] == [float("inf")] * 2
    assert judged.verdict.distances["linf"][0] == pytest.approx(3.0, abs=0.2)


def test_goals_of_classes_attack_only_rows_they_apply_to():
    model = Model(name="m", logits=lambda x: x)
    x, y = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    threat = _threat("classes", "hide:mass", eps=0.5)
    none = reached(threat, predict(model, x, rng=_rng()), y)
    found = propose(make_attack("pgd"), model, x, y, threat, none, minimal=False, rng=_rng())
    assert found.attacked.tolist() == [False, True]
    clean = predict(model, x, rng=_rng())
    judged = verdict(model, x, y, clean, found, threat, minimal=False, rng=_rng())
    assert judged.eligible.tolist() == [False, True]


def test_a_value_is_right_within_its_tolerance():
    x, y = torch.tensor([[10.0, 0.0], [13.0, 0.0], [11.5, 0.0]]), torch.full((3,), 10.0)
    judged, columns = _columns("value", _threat("value", "raise:3"), x, y)
    assert columns["clean_error"].tolist() == pytest.approx([0.0, 3.0, 1.5])
    assert columns["clean_prediction"].tolist() == [0, 1, 0], "more than 2 is wrong, whatever the goal"
    assert columns["won"].tolist() == [False, True, False]
    assert columns["adversarial_error"][[0, 2]].tolist() == pytest.approx([1.0, 2.5], abs=1e-4)
    assert 3.0 < columns["adversarial_error"][1] <= 4.0, "a row that has won goes no farther"
    assert columns["adversarial_prediction"].tolist() == [0, 1, 1]
    assert np.isnan(columns["clean_probabilities"]).all()
    assert np.shape(columns["clean_probabilities"]) == (3, 2)
    assert judged.clean.probabilities.shape == (3, 0)


def test_a_mask_is_right_from_a_dice_of_a_half():
    y = torch.zeros((2, 4, 4), dtype=torch.int64)
    y[0, :2] = 1
    x = torch.stack([1.0 - 2.0 * y, 2.0 * y - 1.0], 1)
    judged, columns = _columns("mask", _threat("mask", "any-error", eps=1.5, names=("none", "lesion")), x, y)
    assert columns["clean_error"].tolist() == [0.0, 0.0]
    assert columns["eligible"].tolist() == [True, False], "nothing can be missed where nothing is"
    assert columns["won"].tolist() == [True, False]
    assert columns["adversarial_error"][0] > 0.5
    assert columns["adversarial_prediction"].tolist() == [1, 0]
    assert judged.verdict.prediction.reported.shape == (2, 4, 4)


def test_the_judge_takes_a_large_batch_of_masks_in_parts():
    y = torch.zeros((600, 4, 4), dtype=torch.int64)
    y[:, 0] = 1
    x = torch.stack([1.0 - 2.0 * y, 2.0 * y - 1.0], 1)
    threat = _threat("mask", "any-error", names=("none", "lesion"))
    assert reached(threat, predict(_model("mask"), x, rng=_rng()), y).shape == (600,)


def test_classes_are_told_as_they_always_were():
    x, y = torch.tensor([[2.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 0])
    _, columns = _columns("classes", _threat("classes", "any-error"), x, y)
    assert columns["label"].tolist() == [0, 0]
    assert columns["adversarial_prediction"].tolist() == [0, 1]
    assert np.isnan(columns["adversarial_error"]).all()
    assert columns["eligible"].tolist() == [True, True]
    np.testing.assert_allclose(columns["clean_probabilities"], x.softmax(1), rtol=1e-6)


def test_names_of_the_values_follow_the_view():
    assert View(output="classes", classes=NAMES).names == NAMES
    assert View(output="labels", classes=NAMES).names == ("as it should be", "wrong")
    hidden = View(output="labels", classes=NAMES, goal=goal("hide:mass", NAMES, "here", "labels"))
    assert (hidden.names, hidden.finding) == (("absent", "present"), 1)
