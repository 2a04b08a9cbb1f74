"""Adaptive margins: each row's budget ends where the model does, and groups of patients have their own."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_defense
from titer.defenses.adaptive_margin import GrowingMargins
from titer.threats.goals import HighestLoss
from titer.training.objectives import Penalty

PLAIN = {"name": "adaptive-margin", "eps": 10.0, "unit": "grey level", "epochs": 12}
BANDS = ("0-1", "1-5")


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def by_age(images):
    def banded(part):
        return replace(part, groups={"age_band": tuple(BANDS[i % 4 == 0] for i in range(len(part)))})

    return replace(images.data, train=banded(images.data.train), validation=banded(images.data.validation))


def test_budgets_grow_to_the_boundary_and_stop_there(linear_model, free_threat):
    """On a linear model the boundary is known: |margin| over the dual norm of the weights."""
    model = linear_model(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    x = torch.tensor([[0.4, 0.0], [1.2, 0.0], [9.0, 0.0], [-1.0, 0.0]])
    truth, growth, eps = torch.zeros(4, dtype=torch.int64), 0.05, 2.0
    margins = torch.full((4,), growth)
    objective = GrowingMargins(
        threat=free_threat("linf", eps, goal=HighestLoss()), penalty=Penalty(), truth=truth, limits=torch.ones(4),
        score_limits=torch.ones(4), margins=margins, growth=growth, weight=0.5,
    )  # fmt: skip
    for epoch in range(60):
        objective.loss(model.net, model.logits, x, torch.arange(4), _rng(epoch))
    # Distances 0.2 and 0.6; the third is beyond every budget, and the fourth is wrong when clean.
    expected = torch.tensor([0.2, 0.6, eps, growth * eps])
    torch.testing.assert_close(eps * margins, expected, rtol=0, atol=2 * growth * eps)


def test_it_buys_robustness(images, fragile, image_threat, robust):
    data, test = fragile
    standard = make_defense({"name": "distillation", "temperature": 1.0})(images.model, data, rng=_rng())
    trained = make_defense(PLAIN)(standard, data, rng=_rng())
    threat = image_threat("linf", 10.0)
    assert robust(trained, test, threat) > robust(standard, test, threat) + 0.2
    assert float((trained.logits(test.x).argmax(1) == test.y).float().mean()) > 0.85


def test_a_group_has_its_own_budget(images, by_age):
    spec = {**PLAIN, "epochs": 1}
    plain, grouped, same = (
        make_defense({**spec, **own})(images.model, by_age, rng=_rng()).provenance["training"]
        for own in ({}, {"groups": {"age_band": {"0-1": 2.0}}}, {"groups": {"age_band": {"0-1": 10.0}}})
    )
    assert plain != grouped
    assert plain == same


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"site": {"A": 2.0}}, r"names the column 'site': allowed are age_band$"),
        ({"age_band": {"65+": 2.0}}, r"names the group of age_band '65\+': allowed are 0-1, 1-5$"),
    ],
)
def test_unknown_groups_are_incompatible(groups, message, images, by_age):
    with pytest.raises(Incompatible, match=message):
        make_defense({**PLAIN, "groups": groups})(images.model, by_age, rng=_rng())


def test_data_without_groups_say_so(images):
    with pytest.raises(Incompatible, match="names the column 'sex': allowed are none"):
        make_defense({**PLAIN, "groups": {"sex": {"F": 2.0}}})(images.model, images.data, rng=_rng())


@pytest.mark.parametrize("own", [{"groups": {"sex": {"F": 0.0}}}, {"groups": {"sex": 3.0}}, {"growth": 1.0}])
def test_wrong_settings_are_named(own):
    with pytest.raises(SpecError, match=f"{next(iter(own))}.* is not allowed"):
        make_defense({**PLAIN, **own})
