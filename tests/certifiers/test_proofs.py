"""Intervals, CROWN and the integer program: sound against attacks, ordered by strength, and the last one exact."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import network_model
from titer.core.plugins import make_attack, make_certifier
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box

SPECS = {
    "ibp": {"name": "interval-bounds"},
    "crown-ibp": {"name": "crown", "layers": "interval"},
    "crown": {"name": "crown"},
    "exact": {"name": "exact", "time_limit": 5.0},
}
ATTACKS = (
    {"name": "pgd", "steps": 20, "restarts": 2},
    {"name": "apgd", "steps": 20},
    {"name": "fmn", "steps": 30},
)


def _dense(seed, widths=(6, 5), inputs=3, classes=3):
    torch.manual_seed(seed)
    sizes = (inputs, *widths)
    parts = [p for a, b in pairwise(sizes) for p in (nn.Linear(a, b), nn.ReLU())]
    return network_model("dense", nn.Sequential(*parts, nn.Linear(sizes[-1], classes)), lambda x: 2 * x - 1, {})


def _convolutional(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    nn.init.uniform_(net[1].running_var, 0.2, 1.0)
    return network_model("convolutional", net, lambda x: 2 * x - 1, {})


def _threat(norm, eps, scale=0.5):
    budget = ball(norm, eps, torch.tensor(scale), "unit")
    return Threat(family=norm, budget=budget, domain=(Box(low=0.0, high=1.0),), goal=AnyError())


def _certify(name, model, x, threat):
    return make_certifier(SPECS[name])(model, x, threat, rng=torch.Generator())


@pytest.mark.parametrize(("make", "shape"), [(_dense, (3,)), (_convolutional, (1, 8, 8))])
@given(st.integers(0, 10**6), st.sampled_from(["linf", "l2", "l1"]))
@hypothesis_settings(max_examples=5)
def test_no_attack_succeeds_inside_a_certified_radius(make, shape, seed, norm):
    model, rng = make(seed), torch.Generator().manual_seed(seed)
    x = torch.rand((12, *shape), generator=rng)
    threat = _threat(norm, 1.5 if norm == "linf" else 3.0)
    y = model.logits(x).argmax(1)
    tried = [*ATTACKS[:2], None] if norm == "linf" else [ATTACKS[0], None]
    nearest = make_attack(ATTACKS[2])(model, x, y, threat, rng=rng)
    for name in SPECS:
        if name == "exact" and (norm == "l2" or make is _convolutional):
            continue
        found = _certify(name, model, x, threat)
        assert torch.equal(found.prediction, y)
        assert bool((found.radius > 0).any())
        # An attack on each row inside its own radius.
        for row in (found.radius > 0).nonzero().flatten().tolist():
            here, inside = x[row : row + 1], threat.at(float(found.radius[row]))
            hit = model.logits(nearest[row : row + 1]).argmax(1) != y[row]
            assert not bool((hit & inside.contains(nearest[row : row + 1], here)).any()), name
        smallest = float(found.radius[found.radius > 0].min())
        rows = found.radius >= smallest
        for spec in tried:
            inside = threat.at(smallest)
            at = (
                x[rows] + torch.randn(x[rows].shape, generator=rng)
                if spec is None
                else make_attack(spec)(model, x[rows], y[rows], inside, rng=rng)
            )
            assert torch.equal(model.logits(inside.project(at, x[rows])).argmax(1), y[rows]), (name, spec)


def test_pgd_finds_nothing_in_each_row_s_own_radius():
    model = _dense(11, widths=(8, 8))
    x = torch.rand((10, 3), generator=torch.Generator().manual_seed(4))
    threat = _threat("linf", 1.0)
    exact = _certify("exact", model, x, threat)
    reached = 0
    for row, radius in enumerate(exact.radius.tolist()):
        here, y = x[row : row + 1], exact.prediction[row : row + 1]
        for factor, wins in ((1.0, False), (1.1, True)):
            inside = threat.at(radius * factor)
            spec = {"name": "apgd", "steps": 60, "restarts": 4}
            at = inside.project(make_attack(spec)(model, here, y, inside, rng=torch.Generator().manual_seed(1)), here)
            won = bool((model.logits(at).argmax(1) != y).any())
            assert not won or wins
            reached += won
    assert reached >= 5, "a tenth beyond the exact radius attacks do succeed"


@given(st.integers(0, 10**6), st.sampled_from(["linf", "l1"]))
@hypothesis_settings(max_examples=6)
def test_exact_is_never_below_crown_nor_crown_below_intervals(seed, norm):
    model, x = _dense(seed), torch.rand((5, 3), generator=torch.Generator().manual_seed(seed))
    radii = {name: _certify(name, model, x, _threat(norm, 1.0)).radius for name in SPECS}
    for weaker, stronger in (("ibp", "crown-ibp"), ("crown-ibp", "crown"), ("crown", "exact")):
        assert bool((radii[stronger] >= radii[weaker]).all()), (weaker, stronger)


def _distance_by_patterns(model, x, norm, eps, scale):
    """Return the distance to the nearest other prediction: a linear program for each pattern of units that are on."""
    net = [part for part in model.net if isinstance(part, nn.Linear)]
    first, second = ((part.weight.double().numpy(), part.bias.double().numpy()) for part in net)
    point, inputs, best = x.double().numpy(), x.numel(), eps
    own = int(model.logits(x[None]).argmax())
    for pattern in product((0.0, 1.0), repeat=len(first[1])):
        on = np.array(pattern)
        signs = 1 - 2 * on
        into, moved = 2 * first[0], first[1] - first[0].sum(1)  # the network sees 2 x - 1
        out, base = second[0] @ (on[:, None] * into), second[0] @ (on * moved) + second[1]
        for rival in set(range(len(base))) - {own}:
            rows = [np.append(sign * row, 0.0) for sign, row in zip(signs, into, strict=True)]
            limits = list(-signs * moved)
            rows.append(np.append(out[own] - out[rival], 0.0))
            limits.append(base[rival] - base[own])
            best = min(best, _program(rows, limits, point, scale, norm, inputs))
    return best


def _program(rows, limits, point, scale, norm, inputs):
    extra = 1 if norm == "linf" else inputs
    pad = np.zeros((len(rows), extra - 1))
    rows = np.hstack([np.array(rows), pad])
    each = np.eye(inputs)
    size = -scale * (np.ones((inputs, 1)) if norm == "linf" else np.eye(inputs))
    rows = np.vstack([rows, np.hstack([each, size]), np.hstack([-each, size])])
    cost = np.concatenate([np.zeros(inputs), np.ones(extra)])
    bounds = [(0, 1)] * inputs + [(0, None)] * extra
    solved = linprog(cost, A_ub=rows, b_ub=np.concatenate([limits, point, -point]), bounds=bounds)
    return solved.fun if solved.status == 0 else np.inf


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("seed", range(2))
def test_exact_equals_brute_force_over_all_patterns(seed, norm):
    model, x = _dense(seed, widths=(5,), inputs=2), torch.rand((4, 2), generator=torch.Generator().manual_seed(seed))
    found = _certify("exact", model, x, _threat(norm, 4.0))
    truth = torch.tensor([_distance_by_patterns(model, row, norm, 4.0, 0.5) for row in x])
    assert bool((found.radius <= truth + 1e-6).all()), "never above the truth"
    assert torch.allclose(found.radius, truth.float(), rtol=2e-3, atol=1e-3)


def test_on_a_linear_model_every_proof_is_the_closed_form():
    model = _dense(5, widths=(), inputs=4, classes=2)
    x = torch.full((20, 4), 0.5) + 0.1 * torch.randn((20, 4), generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    lead = model.logits(x)[:, 0] - model.logits(x)[:, 1]
    weight = 2 * 0.5 * (model.net[0].weight[0] - model.net[0].weight[1])
    for norm, dual in (("linf", 1), ("l2", 2), ("l1", float("inf"))):
        eps = 0.4
        truth = (lead.abs() / torch.linalg.vector_norm(weight, ord=dual)).clamp_max(eps)
        names = ("ibp", "crown") if norm == "linf" else ("crown",)
        for name in names:
            radius = _certify(name, model, x, _threat(norm, eps)).radius
            assert bool((radius <= truth + 1e-5).all())
            clipped = (truth - radius) > 2 * eps / 2**8
            assert not bool(clipped.any()), (name, norm)


def test_a_certificate_holds_at_each_smaller_radius_and_at_no_larger_threat_it_failed():
    model, x = _dense(3, widths=(8, 8)), torch.rand((12, 3), generator=torch.Generator().manual_seed(0))
    for name in ("ibp", "crown", "exact"):
        shares = []
        for eps in (0.02, 0.1, 0.5):
            found = _certify(name, model, x, _threat("linf", eps))
            shares.append(float((found.radius >= eps).float().mean()))
        assert shares == sorted(shares, reverse=True)
        assert shares[0] > 0.5


def test_a_network_larger_than_the_limit_is_refused_with_the_limit():
    model, x = _dense(0, widths=(20, 20)), torch.rand(2, 3)
    with pytest.raises(Incompatible, match=r"at most units = 30 ReLU units, and this one has 40: crown bounds it"):
        make_certifier({"name": "exact", "units": 30})(model, x, _threat("linf", 0.1), rng=torch.Generator())


def test_exact_names_a_max_pooling():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))
    model = network_model("pooled", net, lambda x: x, {})
    with pytest.raises(Incompatible, match=r"no max pooling, and layer '2' is one"):
        _certify("exact", model, torch.rand(1, 1, 8, 8), _threat("linf", 0.1))
    assert float(_certify("crown", model, torch.rand(1, 1, 8, 8), _threat("linf", 0.1)).radius) > 0


def test_out_of_time_the_solver_s_own_bound_is_returned():
    model, x = _dense(2, widths=(12, 12)), torch.rand((3, 3), generator=torch.Generator().manual_seed(5))
    threat = _threat("linf", 2.0)
    crown, whole = _certify("crown", model, x, threat).radius, _certify("exact", model, x, threat).radius
    hurried = make_certifier({"name": "exact", "time_limit": 1e-3})(model, x, threat, rng=torch.Generator()).radius
    assert bool((hurried >= crown).all())
    assert bool((hurried <= whole).all())


def test_a_model_wrapped_in_another_step_is_refused():
    model = _dense(0)
    jpeg_like = type(model)(
        name="wrapped", logits=model.logits, net=model.net, rebuild=model.rebuild, surrogate=model.logits
    )
    with pytest.raises(Incompatible, match="wrapped is randomised or not differentiable"):
        _certify("crown", jpeg_like, torch.rand(2, 3), _threat("linf", 0.1))
