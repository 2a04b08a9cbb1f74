"""Goals: losses that never go blind, and success that counts decisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from titer.core.errors import SpecError
from titer.threats.goals import AnyError, HighestLoss, Targeted, log_odds_of_error
from titer.threats.naming import goal

CLASSES = ("normal", "pneumonia", "other")


def _gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits).sum(), logits)[0]


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_the_loss_is_the_log_odds_of_an_error(seed, classes):
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((5, classes), generator=rng, dtype=torch.float64)
    y = torch.randint(0, classes, (5,), generator=rng)
    p = logits.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(log_odds_of_error(logits, y), ((1 - p) / p).log())


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_its_gradient_is_parallel_to_that_of_cross_entropy(seed, classes):
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((5, classes), generator=rng, dtype=torch.float64)
    y = torch.randint(0, classes, (5,), generator=rng)
    ours = _gradient(lambda z: log_odds_of_error(z, y), logits)
    theirs = _gradient(lambda z: functional.cross_entropy(z, y, reduction="none"), logits)
    torch.testing.assert_close(functional.cosine_similarity(ours, theirs), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("goal_loss", [AnyError().loss, HighestLoss().loss])
def test_it_lives_where_cross_entropy_is_blind(goal_loss):
    logits, y = 1e4 * torch.tensor([[0.3, 0.1, -0.2], [-0.1, 0.2, 0.0]]), torch.tensor([0, 1])
    assert float(_gradient(lambda z: functional.cross_entropy(z, y, reduction="none"), logits).abs().max()) == 0.0
    alive = _gradient(lambda z: goal_loss(z, y), logits)
    torch.testing.assert_close(alive, torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]))


def test_any_error_is_won_by_any_other_class():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert AnyError().won(logits, torch.tensor([0, 0])).tolist() == [False, True]


def test_highest_loss_is_never_won():
    assert HighestLoss().won(torch.tensor([[0.0, 9.0]]), torch.tensor([0])).tolist() == [False]


def test_a_target_is_won_by_that_class_only_and_not_by_its_own_patients():
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 3.0], [0.0, 3.0, 1.0]])
    target = goal("targeted:pneumonia", CLASSES, "here")
    assert target == Targeted(1, "targeted:pneumonia")
    assert target.won(logits, torch.tensor([0, 0, 1])).tolist() == [True, False, False]
    gradient = _gradient(lambda z: target.loss(z, torch.tensor([0, 0, 0])), logits)
    assert bool((gradient[:, 1] > 0).all())
    assert bool((gradient[:, [0, 2]] < 0).all())


@pytest.mark.parametrize("name", ["any-eror", "targeted:flu", "targeted", "pneumonia", ""])
def test_an_unknown_goal_lists_what_is_allowed(name):
    with pytest.raises(SpecError, match=r"here\.goal = .* allowed are any-error, targeted:normal, targeted:pneumonia"):
        goal(name, CLASSES, "here")
