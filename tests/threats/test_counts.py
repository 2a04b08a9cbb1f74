"""Count matrices: totals are kept, counts are whole, nothing falls below 0, and nobody else's value moves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from titer.core.model import Model, network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.counts import LibrarySize, WholeLibrary, count_rules
from titer.threats.goals import AnyError

rows = st.lists(st.integers(0, 5000), min_size=2, max_size=12)


@given(rows, st.integers(0, 10_000), st.floats(0.01, 2.0))
def test_rounding_keeps_the_library_and_touches_no_other_gene(counts: list[int], seed: int, size: float) -> None:
    x = torch.tensor([counts], dtype=torch.float32)
    rng = torch.Generator().manual_seed(seed)
    moved = torch.rand(x.shape, generator=rng) < 0.5
    x_adv = torch.where(moved, (x + size * 500 * torch.randn(x.shape, generator=rng)).clamp_min(0), x)
    whole = WholeLibrary().project(x_adv, x)
    assert bool((whole[x_adv == x] == x[x_adv == x]).all())
    assert bool((whole >= 0).all())
    if int((x_adv != x).sum()) > 1:
        assert bool(WholeLibrary().contains(whole, x))
    assert bool(LibrarySize().contains(LibrarySize().project(x_adv, x), x)) or int((x_adv != x).sum()) < 2


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    x = torch.tensor([[10.0, 10.0, 10.0]])
    # 12.6, 9.8 and 7.6 add up to 30: floors 12, 9, 7 leave 2, for the remainders 0.8 and then 0.6 of the first.
    assert WholeLibrary().project(torch.tensor([[12.6, 9.8, 7.6]]), x).tolist() == [[13.0, 10.0, 7.0]]


def test_a_library_of_more_reads_than_float32_sums_is_kept_exactly() -> None:
    x = torch.full((1, 40), 4_000_001.0)
    x_adv = x.clone()
    x_adv[0, :2] += torch.tensor([0.5, 20.25])
    found = WholeLibrary().project(x_adv, x)
    assert float(found.double().sum()) == float(x.double().sum())
    assert bool(WholeLibrary().contains(found, x))
    found[0, 5] += 1
    assert not bool(WholeLibrary().contains(found, x))


def _problem() -> tuple[Model, Tensor, Tensor, Tensor]:
    """Return a linear model, rows, labels, and what one more read of each gene does for the other class."""
    x = torch.randint(100, 2000, (30, 20), generator=torch.Generator().manual_seed(1)).float()
    net = torch.nn.Linear(20, 2)
    with torch.no_grad():
        net.weight.copy_(torch.randn((2, 20), generator=torch.Generator().manual_seed(2)) / 100)
        net.bias.copy_(-(x @ net.weight.T).mean(0))
    model = network_model("counts", net, lambda rows: rows, {})
    y = model.logits(x).argmax(1)
    return model, x, y, net.weight.detach()[1 - y] - net.weight.detach()[y]


def _threat(norm: str, eps: float) -> Threat:
    unit = "values" if norm == "l0" else "count"
    budget = ball(norm, eps, torch.tensor(1.0), unit)
    return Threat(family=norm, budget=budget, domain=count_rules(), goal=AnyError())


def _won(attack: str, norm: str, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return bool[n], which rows were won inside the rules; the lead of the true class; and the slopes."""
    model, x, y, slope = _problem()
    threat = _threat(norm, eps)
    found = make_attack(attack)(model, x, y, threat, rng=torch.Generator().manual_seed(0))
    found = threat.project(found, x)
    assert bool(threat.contains(found, x).all())
    assert torch.equal(found.double().sum(1), x.double().sum(1))
    logits = model.logits(x)
    lead = (logits.gather(1, y.unsqueeze(1)) - logits.gather(1, (1 - y).unsqueeze(1))).squeeze(1)
    return model.logits(found).argmax(1) != y, lead, slope


@pytest.mark.parametrize(
    ("attack", "norm", "eps"), [("pgd", "linf", 80.0), ("apgd", "linf", 80.0), ("fmn", "l2", 300.0)]
)
def test_gradients_come_near_the_optimum_of_a_linear_model(attack: str, norm: str, eps: float) -> None:
    """What one gene gains another loses: the better half of the genes goes up, the other down."""
    won, lead, slope = _won(attack, norm, eps)
    if norm == "linf":
        middle = slope.median(1, keepdim=True).values
        best = eps * (slope - middle).abs().sum(1)
    else:
        best = eps * (slope - slope.mean(1, keepdim=True)).norm(dim=1)
    possible = best > 1.05 * lead
    assert 5 < int(possible.sum()) < 30
    assert int(won.sum()) >= 0.9 * int(possible.sum())
    assert not bool((won & (best < 0.95 * lead)).any())


def test_random_search_takes_reads_from_one_gene_for_another() -> None:
    won, _, _ = _won("sparse-rs", "l0", 4.0)
    assert float(won.float().mean()) > 0.3
