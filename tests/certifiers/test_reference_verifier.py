"""Complete verification agrees with Marabou, a solver of its own (Katz et al. 2019, Wu et al. 2024)."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from titer.core.model import network_model
from titer.core.plugins import make_certifier
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box

marabou = pytest.importorskip("maraboupy.MarabouCore", reason="maraboupy has no wheel for this Python")


THREAT = Threat(
    family="linf",
    budget=ball("linf", 1.0, torch.tensor(1.0), "unit"),
    domain=(Box(low=0.0, high=1.0),),
    goal=AnyError(),
)


def _dense(seed, sizes=(3, 7, 6, 3)):
    torch.manual_seed(seed)
    parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())][:-1]
    return network_model("dense", nn.Sequential(*parts), lambda x: x, {})


def _flips(net, low, high, own):
    """Return whether Marabou finds an input between low and high [D] to which another logit is at least `own`'s."""
    layers = [part for part in net if isinstance(part, nn.Linear)]
    classes = layers[-1].out_features
    return any(_solved(layers, low, high, own, rival) for rival in range(classes) if rival != own)


class _Query:
    """A query of Marabou with variables that are added layer by layer."""

    def __init__(self):
        self.raw, self.count = marabou.InputQuery(), 0

    def variables(self, size):
        self.count += size
        self.raw.setNumberOfVariables(self.count)
        return range(self.count - size, self.count)

    def equal(self, weights, sources, target, bias=0.0):
        equation = marabou.Equation()
        for weight, source in zip(weights, sources, strict=True):
            equation.addAddend(float(weight), source)
        equation.addAddend(-1.0, target)
        equation.setScalar(-float(bias))
        self.raw.addEquation(equation)

    def rectified(self, given):
        out = self.variables(len(given))
        for before, after in zip(given, out, strict=True):
            self.raw.setLowerBound(after, 0.0)
            marabou.addReluConstraint(self.raw, before, after)
        return out

    def solvable(self):
        options = marabou.Options()
        options._verbosity = 0
        answer = marabou.solve(self.raw, options, "")[0]
        assert answer in ("sat", "unsat")
        return answer == "sat"


def _solved(layers, low, high, own, rival):
    query = _Query()
    values = query.variables(len(low))
    for place, variable in enumerate(values):
        query.raw.setLowerBound(variable, float(low[place]))
        query.raw.setUpperBound(variable, float(high[place]))
        query.raw.markInputVariable(variable, place)
    for index, layer in enumerate(layers):
        sources = values if index == 0 else query.rectified(values)
        values = query.variables(layer.out_features)
        for row, bias, variable in zip(layer.weight, layer.bias, values, strict=True):
            query.equal(row, sources, variable, bias)
    lead = query.variables(1)[0]
    query.equal((1.0, -1.0), (values[rival], values[own]), lead)
    query.raw.setLowerBound(lead, 0.0)
    return query.solvable()


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_radius_is_where_marabou_s_answer_turns(seed):
    model, generator = _dense(seed), torch.Generator().manual_seed(seed)
    x = torch.rand((4, 3), generator=generator)
    found = make_certifier("exact")(model, x, THREAT, rng=generator)
    for row, own, radius in zip(x, found.prediction.tolist(), found.radius.tolist(), strict=True):
        for factor in (0.98, 1.02):
            reach = radius * factor
            flips = _flips(model.net, (row - reach).clamp_min(0), (row + reach).clamp_max(1), own)
            assert flips == (factor > 1 and reach < 1), (seed, own, radius, factor)


@pytest.mark.parametrize("spec", ["interval-bounds", "crown"])
def test_marabou_finds_nothing_inside_a_bound_s_radius(spec):
    model, generator = _dense(11), torch.Generator().manual_seed(11)
    x = torch.rand((6, 3), generator=generator)
    found = make_certifier(spec)(model, x, THREAT, rng=generator)
    assert bool((found.radius > 0).any())
    for row, own, radius in zip(x, found.prediction.tolist(), found.radius.tolist(), strict=True):
        reach = 0.999 * radius
        assert not _flips(model.net, (row - reach).clamp_min(0), (row + reach).clamp_max(1), own)
