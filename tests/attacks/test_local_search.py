"""Local search against models whose worst case is known: sums of single values, with and without a slope."""

from __future__ import annotations

import pytest
import torch

from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.room import choices
from titer.threats.rules import Box, whole_numbers, whole_steps

ROWS, VALUES, CLASSES = 40, 60, 4
SHAPE = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(CLASSES, VALUES, generator=SHAPE)
X = torch.rand(ROWS, VALUES, generator=SHAPE)


def threat(eps: float) -> Threat:
    return Threat(
        family="l0",
        budget=ball("l0", eps, torch.tensor(1.0), "values", "threat"),
        domain=(Box(low=0.0, high=1.0),),
        goal=AnyError(),
        access="scores",
    )


def scores(x: torch.Tensor) -> torch.Tensor:
    """Return a sum over values that are called above 0.3 or below, without a slope anywhere."""
    return (x > 0.3).to(x) @ WEIGHTS.t()


def worst(x: torch.Tensor, y: torch.Tensor, eps: int) -> torch.Tensor:
    """Return bool[N], which rows `eps` values can turn: for each rival the values that gain most."""
    called = (x > 0.3).float()
    logits = scores(x)
    turned = torch.zeros(len(x), dtype=torch.bool)
    for rival in range(CLASSES):
        slope = WEIGHTS[rival] - WEIGHTS[y]
        gain = torch.where(called == 1, -slope, slope).clamp_min(0).topk(eps, dim=1).values.sum(1)
        turned |= (y != rival) & (logits[:, rival] + gain > logits.gather(1, y.unsqueeze(1)).squeeze(1))
    return turned


@pytest.mark.parametrize("eps", [1, 3, 8])
@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_it_is_exact_on_a_sum_of_calls_that_have_no_slope(eps: int, rounds: int) -> None:
    y = scores(X).argmax(1)
    attack = make_attack({"name": "local-search", "rounds": rounds})
    model = Model(name="calls", logits=scores, access="scores")
    found = attack(model, X, y, threat(eps), rng=torch.Generator().manual_seed(0))
    assert bool(threat(eps).contains(found, X).all())
    won = scores(found).argmax(1) != y
    if rounds == 1:
        assert won.tolist() == worst(X, y, eps).tolist()
    else:  # what is chosen early may be the wrong rival's
        assert not bool((won & ~worst(X, y, eps)).any())
        assert int(won.sum()) >= 0.8 * int(worst(X, y, eps).sum())


def test_some_rows_hold_and_some_fall() -> None:
    y = scores(X).argmax(1)
    assert 0 < int(worst(X, y, 3).sum()) < ROWS


DOSAGES = torch.randint(0, 3, (ROWS, VALUES), generator=SHAPE).float()
EFFECTS = torch.randn(VALUES, 3, CLASSES, generator=SHAPE)
"""What each genotype adds to each class: one copy of an allele need not do half of what two do."""


def genotypes(eps: float) -> Threat:
    whole = whole_numbers("each dosage is a whole number of alleles")
    return Threat(
        family="l0",
        budget=ball("l0", eps, torch.tensor(1.0), "values", "threat"),
        domain=(Box(low=0.0, high=torch.full((VALUES,), 2.0)), whole),
        goal=AnyError(),
        access="scores",
    )


def ancestry(x: torch.Tensor) -> torch.Tensor:
    return EFFECTS[torch.arange(VALUES), x.long()].sum(1)


def worst_genotypes(x: torch.Tensor, y: torch.Tensor, eps: int) -> torch.Tensor:
    """Return bool[N], which rows `eps` genotypes can turn: each site adds by itself, so its best genotype is known."""
    logits, turned = ancestry(x), torch.zeros(len(x), dtype=torch.bool)
    now = EFFECTS[torch.arange(VALUES), x.long()]
    for rival in range(CLASSES):
        margins = EFFECTS[..., rival] - EFFECTS.permute(2, 0, 1)[y]  # [N, D, 3]
        gain = margins.amax(2) - (now[..., rival] - now.gather(2, y.view(-1, 1, 1).expand(-1, VALUES, 1))[..., 0])
        most = gain.topk(eps, dim=1).values.sum(1)
        turned |= (y != rival) & (logits[:, rival] + most > logits.gather(1, y.unsqueeze(1)).squeeze(1))
    return turned


@pytest.mark.parametrize("eps", [1, 2, 4])
def test_it_is_exact_on_genotypes_of_which_the_middle_one_may_do_most(eps: int) -> None:
    y = ancestry(DOSAGES).argmax(1)
    model = Model(name="ancestry", logits=ancestry, access="scores")
    found = make_attack("local-search")(model, DOSAGES, y, genotypes(eps), rng=torch.Generator().manual_seed(0))
    assert bool(genotypes(eps).contains(found, DOSAGES).all())
    won = ancestry(found).argmax(1) != y
    assert won.tolist() == worst_genotypes(DOSAGES, y, eps).tolist()
    assert eps == 4 or not bool(won.all())
    assert bool(((found == 1) & (DOSAGES != 1)).any())  # the middle was gone to from an end


def test_what_a_value_may_become_are_its_ends_or_the_few_whole_numbers_that_a_rule_leaves_it() -> None:
    few = choices(genotypes(1), DOSAGES)
    assert few[:, 0].tolist() == [0.0, 1.0, 2.0]
    mixed = Box(low=0.0, high=torch.tensor([1.0, 2.0, 500.0]))
    x, budget = torch.zeros(1, 3), ball("l0", 1, torch.tensor(1.0), "values", "threat")
    of = Threat(family="l0", budget=budget, domain=(mixed, whole_numbers()), goal=AnyError(), access="scores")
    nan_as = choices(of, x).nan_to_num(-1.0).t().tolist()
    assert nan_as == [[0.0, 1.0, -1.0], [0.0, 1.0, 2.0], [0.0, 500.0, -1.0]]
    assert choices(threat(1), X).tolist() == [[0.0] * VALUES, [1.0] * VALUES]


def test_whole_steps_of_a_recorder_are_counted_in_steps() -> None:
    budget = ball("l0", 1, torch.tensor(1.0), "values", "threat")
    domain = (Box(low=-0.5, high=0.5), whole_steps(0.5, "whole steps"))
    of = Threat(family="l0", budget=budget, domain=domain, goal=AnyError(), access="scores")
    assert choices(of, torch.zeros(1, 1)).flatten().tolist() == [-0.5, 0.0, 0.5]
