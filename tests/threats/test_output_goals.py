"""Goals of several findings, of a value and of a mask: a margin that tells success, a loss that leads to it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from titer.core.errors import SpecError
from titer.core.model import network_model
from titer.core.outputs import OUTPUTS, as_logits, decided, dice, errors, predicted, wrong
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.mask_goals import nth_largest
from titer.threats.naming import any_error, goal, highest_loss

FINDINGS = ("effusion", "nodule", "mass")
CLASSES = ("background", "oedema", "tumour")
SIDE = 6
GOALS = {
    "labels": ("any-error", "hide:nodule", "invent:nodule"),
    "value": ("any-error", "shift:1.5", "raise:1.5", "lower:1.5"),
    "mask": ("any-error", "dice:0.8", "dice:1", "hide:tumour", "hide:oedema", "shrink:0.5", "move:1.2"),
}
EVERY = [(output, name) for output, names in GOALS.items() for name in names]

every_goal = pytest.mark.parametrize(("output", "name"), EVERY, ids=lambda value: str(value))


def _named(output, name):
    return goal(name, FINDINGS if output == "labels" else CLASSES, "here", output, 2.0)


def _scene(output, rng, count=8, dtype=torch.float64):
    """Logits and truths of `count` rows; masks with a lesion of each class, one row without any."""
    if output == "labels":
        return torch.randn((count, 3), generator=rng, dtype=dtype), torch.randint(0, 2, (count, 3), generator=rng)
    if output == "value":
        return 3 * torch.randn((count, 1), generator=rng, dtype=dtype), torch.randn(count, generator=rng, dtype=dtype)
    y = torch.zeros((count, SIDE, SIDE), dtype=torch.int64)
    for row in range(count - 1):
        top, left = torch.randint(0, 3, (2,), generator=rng).tolist()
        y[row, top : top + 3, left : left + 3] = 1 + row % 2
        y[row, top, left] = 2 - row % 2
    sure = 2.0 * torch.nn.functional.one_hot(y, 3).movedim(-1, 1)
    return sure * torch.rand((), generator=rng) + torch.randn((count, 3, SIDE, SIDE), generator=rng, dtype=dtype), y


@every_goal
@given(seed=st.integers(0, 10**6))
def test_the_margin_is_above_zero_exactly_where_the_goal_is_won(output, name, seed):
    logits, y = _scene(output, torch.Generator().manual_seed(seed))
    one = _named(output, name)
    applies = one.applies(y)
    assert applies.shape == (len(y),)
    assert torch.equal(one.won(logits, y)[applies], one.margin(logits, y)[applies] > 0)
    assert not bool(one.won(logits, y)[~applies].any())


@every_goal
@given(seed=st.integers(0, 10**6))
def test_the_decision_alone_tells_who_won(output, name, seed):
    logits, y = _scene(output, torch.Generator().manual_seed(seed))
    one = _named(output, name)
    assert torch.equal(one.won(decided(output, logits), y), one.won(logits, y))
    reported = predicted(output, logits)
    assert torch.equal(one.won(as_logits(output, reported, logits.shape[1]), y), one.won(logits, y))


def _gradient(measure, logits, y):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(measure(logits, y).sum(), logits)[0].flatten(1)


@every_goal
@pytest.mark.parametrize("sure", [1.0, 1e4])
def test_loss_and_margin_have_a_slope_however_sure_the_model_is(output, name, sure):
    """Where the softmax saturates, a cross-entropy has none."""
    _, y = _scene(output, torch.Generator().manual_seed(3), dtype=torch.float32)
    right = y.float() if output == "value" else y
    logits = sure * as_logits(output, right, 3)
    one = _named(output, name)
    logits, y = (value[one.applies(y)] for value in (logits, y))
    for measure in (one.loss, one.margin):
        slope = _gradient(measure, logits, y)
        assert bool(slope.isfinite().all())
        assert bool((slope != 0).any(1).all())


@every_goal
def test_climbing_the_loss_leads_to_success_on_a_linear_model(output, name):
    rng = torch.Generator().manual_seed(5)
    _, y = _scene(output, rng, count=12, dtype=torch.float32)
    width = {"labels": 3, "value": 1, "mask": 3 * SIDE * SIDE}[output]
    net = nn.Sequential(nn.Linear(width, width), *([nn.Unflatten(1, (3, SIDE, SIDE))] if output == "mask" else []))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(width) + 0.03 * torch.randn((width, width), generator=rng))
        net[0].bias.zero_()
    x = as_logits(output, y, 3).flatten(1) * (1.0 if output == "value" else 2.0)
    one = _named(output, name)
    x, y = x[one.applies(y)], y[one.applies(y)]
    model = network_model("linear", net, lambda rows: rows, {})
    threat = Threat(family="linf", budget=ball("linf", 5.0, torch.tensor(1.0), "unit"), domain=(), goal=one)
    before = one.won(model.logits(x), y)
    found = make_attack({"name": "pgd", "steps": 60, "step": 0.05})(model, x, y, threat, rng=rng)
    assert not bool(before.all())
    assert bool(one.won(model.logits(found), y).all())


def test_the_nearest_finding_leads_the_loss():
    logits, y = torch.tensor([[-8.0, -0.5, -6.0]]), torch.tensor([[0, 0, 0]])
    slope = _gradient(any_error("labels").loss, logits, y)[0]
    assert float(slope[1]) > 0.99
    assert torch.equal(any_error("labels").margin(logits, y), torch.tensor([-0.5]))


def test_goals_of_a_finding_leave_the_others_alone():
    logits = torch.tensor([[3.0, -1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    y = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    hide, invent = (_named("labels", f"{kind}:nodule") for kind in ("hide", "invent"))
    assert hide.applies(y).tolist() == [True, True, False]
    assert hide.won(logits, y).tolist() == [True, False, False]
    assert invent.won(logits, y).tolist() == [False, False, True]
    assert _gradient(hide.loss, logits, y).tolist() == [[0.0, -1.0, 0.0]] * 3


def test_a_value_is_won_beyond_its_tolerance_on_the_wanted_side():
    logits, y = torch.tensor([[12.0], [8.0], [11.5], [10.0]]), torch.full((4,), 10.0)
    won = {name: _named("value", name).won(logits, y).tolist() for name in GOALS["value"]}
    assert won["any-error"] == [False] * 4, "2 is the tolerance, not beyond it"
    assert won["shift:1.5"] == [True, True, False, False]
    assert won["raise:1.5"] == [True, False, False, False]
    assert won["lower:1.5"] == [False, True, False, False]


def _mask_logits(mask):
    return as_logits("mask", mask, 3)


def test_masks_are_judged_by_their_pixels():
    y = torch.zeros((1, 10, 10), dtype=torch.int64)
    y[0, 2:6, 2:7] = 2
    same, moved, other, nothing = y.clone(), torch.roll(y, 3, 2), y.clamp_max(1), torch.zeros_like(y)
    one_seen, three_seen = nothing.clone(), nothing.clone()
    one_seen[0, 2, 2], three_seen[0, 2, 2:5] = 2, 2
    won = {
        name: [
            bool(_named("mask", name).won(_mask_logits(mask), y))
            for mask in (same, moved, other, nothing, one_seen, three_seen)
        ]
        for name in ("any-error", "hide:tumour", "shrink:0.5", "move:2.9")
    }
    assert won["any-error"] == [False, True, True, True, True, True]
    assert won["hide:tumour"] == [False, False, True, True, True, False], "of 20 pixels, less than 2 may be found"
    assert won["shrink:0.5"] == [False, False, False, True, True, True]
    assert won["move:2.9"] == [False, True, False, False, False, False], "an empty mask has not moved"


def test_dice_is_the_share_of_the_foregrounds_that_overlaps():
    y = torch.zeros((4, 4, 4), dtype=torch.int64)
    y[:3, 0] = 1
    mask = y.clone()
    mask[0, 0, :2], mask[1], mask[2, 0, 0] = 0, 0, 2
    torch.testing.assert_close(dice(mask, y), torch.tensor([2 * 2 / 6, 0.0, 2 * 3 / 8, 1.0]))
    assert wrong("mask", mask, y).tolist() == [False, True, False, False]


def test_errors_are_told_in_the_units_of_the_output():
    findings = torch.tensor([[1, 0, 1], [0, 0, 0]])
    assert errors("labels", findings, torch.tensor([[0, 1, 1], [0, 0, 0]])).tolist() == [2.0, 0.0]
    assert errors("value", torch.tensor([12.0, 9.0]), torch.tensor([10.0, 10.0])).tolist() == [2.0, 1.0]
    assert wrong("value", torch.tensor([12.0, 9.0]), torch.tensor([10.0, 10.0]), tolerance=1.0).tolist() == [
        True,
        False,
    ]


@given(seed=st.integers(0, 10**6), rank=st.integers(0, 9))
def test_the_nth_largest_is_exact_and_its_slope_a_mean(seed, rank):
    leads = torch.randn((3, 10), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    value = nth_largest(leads, torch.full((3,), rank))
    torch.testing.assert_close(value, leads.sort(1, descending=True).values[:, rank])
    slope = torch.autograd.grad(value.sum(), leads)[0]
    assert bool((slope > 0).all())
    torch.testing.assert_close(slope.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("output", OUTPUTS)
def test_training_s_goal_is_never_satisfied(output):
    if output == "classes":
        logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    else:
        logits, y = _scene(output, torch.Generator().manual_seed(1), dtype=torch.float32)
    endless = highest_loss(output)
    assert not bool(endless.won(logits, y).any())
    assert bool(endless.applies(y).all())
    assert endless.loss(logits, y).shape == endless.margin(logits, y).shape == (len(y),)


def test_the_largest_binary_loss_has_the_direction_of_the_binary_cross_entropy():
    logits, y = _scene("labels", torch.Generator().manual_seed(1))
    ours = _gradient(highest_loss("labels").loss, logits, y)
    theirs = _gradient(
        lambda z, truth: nn.functional.binary_cross_entropy_with_logits(z, truth.double(), reduction="none").sum(1),
        logits,
        y,
    )
    torch.testing.assert_close(nn.functional.cosine_similarity(ours, theirs), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("output", "name", "said"),
    [
        ("labels", "targeted:nodule", "any-error, hide:effusion, hide:nodule, hide:mass, invent:effusion"),
        ("labels", "hide:pneumonia", "any-error, hide:effusion"),
        ("labels", "shift:2", "any-error, hide:effusion"),
        ("value", "shift", "any-error, shift:TOLERANCE, raise:TOLERANCE, lower:TOLERANCE"),
        ("value", "shift:-3", "above 0 in the label's unit"),
        ("value", "raise:nan", "above 0 in the label's unit"),
        ("value", "lower:inf", "above 0 in the label's unit"),
        ("value", "dice:0.5", "shift:TOLERANCE"),
        ("mask", "dice:1.5", "dice:LIMIT (above 0, up to 1), hide:oedema, hide:tumour, shrink:SHARE"),
        ("mask", "dice:0", "dice:LIMIT"),
        ("mask", "shrink:1", "shrink:SHARE (between 0 and 1)"),
        ("mask", "hide:background", "hide:oedema, hide:tumour"),
        ("mask", "move:far", "move:PIXELS (above 0)"),
        ("classes", "shift:2", "targeted:background"),
    ],
)
def test_a_goal_that_does_not_fit_the_output_lists_what_is_allowed(output, name, said):
    with pytest.raises(SpecError) as caught:
        _named(output, name)
    assert f"here.goal = {name!r} is not known: allowed are " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
