"""Auto-PGD and the losses it climbs."""

import pytest
import torch

from titer.attacks.apgd import checkpoints
from titer.core.plugins import make_attack
from titer.threats.goals import AnyError, Hidden, Targeted
from titer.threats.losses import difference_of_logits_ratio, rival, targeted_ratio


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_checkpoints_are_the_papers():
    # Croce and Hein 2020, section 3.2: p = 0, .22, .41, .57, .70, .80, .87, .93, .99 of the steps.
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(100)[41] == 22
    for steps in (1, 2, 5, 10, 37):
        marks = checkpoints(steps)
        assert all(0 <= before < mark < max(steps, 1) for mark, before in marks.items())


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_dlr_is_positive_exactly_where_the_goal_is_reached(classes):
    logits = torch.randn((200, classes), generator=_rng())
    y = torch.arange(200) % classes
    for goal in (AnyError(), Targeted(0, "targeted:a"), Hidden(1, "hide:b")):
        ratio = difference_of_logits_ratio(goal, "classes", logits, y)
        assert bool(ratio.isfinite().all())
        assert torch.equal(ratio > 0, goal.margin(logits, y) > 0)


def test_dlr_does_not_care_how_confident_the_model_is():
    logits, y = torch.randn((50, 5), generator=_rng()), torch.arange(50) % 5
    one = difference_of_logits_ratio(AnyError(), "classes", logits, y)
    torch.testing.assert_close(difference_of_logits_ratio(AnyError(), "classes", 100 * logits + 7, y), one)
    lead = targeted_ratio(logits, y, rival(logits, y, 0))
    torch.testing.assert_close(targeted_ratio(100 * logits + 7, y, rival(logits, y, 0)), lead, rtol=1e-4, atol=1e-5)


def test_below_three_classes_dlr_is_the_margin():
    logits, y = torch.randn((50, 2), generator=_rng()), torch.arange(50) % 2
    assert torch.equal(difference_of_logits_ratio(AnyError(), "classes", logits, y), AnyError().margin(logits, y))
    assert torch.equal(targeted_ratio(logits, y, 1 - y), AnyError().margin(logits, y))


def test_rivals_come_in_order_and_are_never_the_true_class():
    logits, y = torch.randn((50, 4), generator=_rng()), torch.arange(50) % 4
    ranks = torch.stack([rival(logits, y, rank) for rank in range(3)], 1)
    assert bool((ranks != y.unsqueeze(1)).all())
    values = logits.gather(1, ranks)
    assert bool((values.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("loss", ["goal", "dlr", "targeted-dlr", "margin"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_loss_beats_the_same_steps_of_pgd_or_equals_them(loss, norm, images, image_threat):
    eps = {"linf": 6.0, "l2": 45.0, "l1": 300.0}[norm]
    threat = image_threat(norm, eps)
    won = {}
    for spec in ({"name": "pgd", "steps": 40}, {"name": "apgd", "steps": 40, "loss": loss}):
        found = make_attack(spec)(images.model, images.test.x, images.test.y, threat, rng=_rng())
        reached = threat.goal.won(images.model.logits(found), images.test.y) & threat.contains(found, images.test.x)
        won[spec["name"]] = float(reached.float().mean())
    assert 0.1 < won["pgd"] < 1.0
    assert won["apgd"] >= won["pgd"] - 0.01


def test_restarts_aim_at_one_rival_after_another(linear_model, free_threat):
    # Class 2 is the nearest rival at the clean row, class 1 the one within reach.
    model = linear_model(torch.tensor([[1.0, 0.0], [-4.0, 0.0], [0.0, 0.01]]), torch.tensor([0.0, -4.0, 0.5]))
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert rival(model.logits(x), y, 0).tolist() == [2]
    threat = free_threat("linf", 1.9, goal=AnyError())
    found = make_attack({"name": "apgd", "loss": "targeted-dlr", "restarts": 2})(model, x, y, threat, rng=_rng())
    assert bool(threat.goal.won(model.logits(found), y).all())
