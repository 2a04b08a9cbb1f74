"""Bounds hold: nothing that a network computes inside a region lies outside them; on what is linear they are tight."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.plugins import make
from titer.core.threat import Threat
from titer.engine.bound_graph import graph
from titer.engine.bounds import intervals, lowest, tightened
from titer.engine.regions import around, check_preprocessing
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box, MutableMask


class Residual(nn.Module):
    """A block as residual networks have it, functional and in-place steps included."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.BatchNorm2d(3)
        self.second, self.short = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(2, 3, 1, stride=2)
        self.act, self.out = nn.ReLU(inplace=True), nn.Linear(12, 3)

    def forward(self, x):
        x = x * 0.5 + 0.1
        out = self.second(self.act(self.norm(self.first(x))))
        out += self.short(x)
        return self.out(functional.relu(out).view(out.size(0), -1))


def _plain(*parts):
    return nn.Sequential(*parts)


NETWORKS = {
    "dense": lambda: _plain(nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
    "convolution": lambda: _plain(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv2d(4, 4, 3, groups=2, padding="same"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(8, 3),
    ),
    "max pooling": lambda: _plain(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    ),
    "batch norm": lambda: _plain(
        nn.Conv2d(2, 3, 3, bias=False, dilation=2, padding=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 3),
    ),
    "residual": Residual,
}
SHAPE = (2, 4, 4)


def _network(name, seed):
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.weight)
    return net.eval().requires_grad_(requires_grad=False)


def _threat(norm, eps, domain=(), scale=1.0):
    return Threat(family=norm, budget=ball(norm, eps, torch.as_tensor(scale), "unit"), domain=domain, goal=AnyError())


def _region(x, norm="linf", eps=0.1, domain=(), scale=1.0):
    return around(lambda net: lambda x: net(x), x, _threat(norm, eps, domain, scale), torch.full((len(x),), eps))


@pytest.mark.parametrize("name", NETWORKS)
@given(st.integers(0, 10**6), st.sampled_from(["linf", "l2", "l1"]), st.floats(0.01, 0.6))
@hypothesis_settings(max_examples=8)
def test_nothing_inside_a_region_lies_outside_its_bounds(name, seed, norm, eps):
    net, rng = _network(name, seed), torch.Generator().manual_seed(seed)
    x = torch.randn((3, *SHAPE), generator=rng)
    threat, region, layers = _threat(norm, eps), _region(x, norm, eps), graph(net, x)
    slope = torch.randn((3, 2, 3), generator=rng)
    found = {"intervals": intervals(layers, region), "tightened": tightened(layers, region)}
    last = len(layers.steps) - 1
    least = [lowest(layers, slope, last, one, region, bend=bend) for one in found.values() for bend in (True, False)]
    for _ in range(20):
        moved = threat.project(x + eps * 2 * torch.randn(x.shape, generator=rng), x)
        out = net(moved)
        assert torch.allclose(layers(moved), out, atol=1e-4)
        for bounds in found.values():
            assert bool((out >= bounds[-1].low - 1e-4).all())
            assert bool((out <= bounds[-1].high + 1e-4).all())
        for one in least:
            assert bool(((slope @ out.unsqueeze(2)).squeeze(2) >= one - 1e-3).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_region_of_one_point_is_bounded_by_the_network_itself(name):
    net, x = _network(name, 3), torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(1))
    layers, region = graph(net, x), _region(x, eps=1e-7)
    for bounds in (intervals(layers, region), tightened(layers, region)):
        assert torch.allclose(bounds[-1].low, net(x), atol=1e-5)
        assert torch.allclose(bounds[-1].high, net(x), atol=1e-5)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", float("inf"))])
def test_on_a_linear_network_the_bound_is_the_dual_norm(norm, dual):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Linear(5, 3)).requires_grad_(requires_grad=False)
    x, scale = torch.randn(6, *SHAPE), torch.rand(SHAPE)
    region = _region(x, norm, 0.3, scale=scale)
    layers = graph(net, x)
    least = lowest(layers, torch.eye(3).expand(6, 3, 3), 3, intervals(layers, region), region)
    weight = net[2].weight @ net[1].weight
    reach = 0.3 * torch.linalg.vector_norm(weight * scale.flatten(), ord=dual, dim=1)
    assert torch.allclose(least, net(x) - reach, atol=1e-5)


def test_values_that_a_rule_holds_do_not_move():
    x = torch.rand((2, *SHAPE))
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0] = True
    region = _region(x, eps=0.5, domain=(Box(low=0.0, high=1.0), MutableMask(mask=mask)))
    assert torch.equal(region.box.low[:, 1], x[:, 1])
    assert torch.equal(region.box.low[:, 0], (x[:, 0] - 0.5).clamp_min(0))
    assert torch.equal(region.box.high[:, 0], (x[:, 0] + 0.5).clamp_max(1))


@pytest.mark.parametrize("most", [1, 5, None])
def test_tightened_intervals_are_inside_plain_ones(most):
    net, x = _network("convolution", 1), torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(2))
    layers, region = graph(net, x), _region(x, eps=0.3)
    plain, tighter = (bounds[-1].radius for bounds in (intervals(layers, region), tightened(layers, region, most)))
    assert bool((tighter <= plain + 1e-6).all())
    assert float(tighter.mean()) < float(plain.mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("name", ["small-cnn", "mlp", "resnet18"])
def test_the_networks_of_the_project_are_bounded(name, shape):
    torch.manual_seed(0)
    net = make("networks", name)(shape, 2).eval()
    x = torch.rand(2, *shape)
    layers = graph(net, x)
    with torch.no_grad():
        assert torch.allclose(layers(x), net(x), atol=1e-4)
        bounds = intervals(layers, _region(x, eps=1e-4))
    assert bool((bounds[-1].low <= net(x)).all())


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.Sigmoid(), nn.Linear(3, 2)), r"layer '2' \(Sigmoid\)"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()), r"layer '0' \(Conv2d\)"),
        (nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()), r"layer '0' \(BatchNorm2d\)"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(64, 2)), "mixes the rows"),
    ],
)
def test_a_layer_that_cannot_be_bounded_is_named(net, named):
    with pytest.raises(Incompatible, match=named):
        graph(net, torch.zeros(1, *SHAPE))


def test_what_is_supported_is_said():
    with pytest.raises(Incompatible, match="supported are linear layers, convolutions"):
        graph(nn.Sequential(nn.Flatten(), nn.GELU()), torch.zeros(1, *SHAPE))


def test_a_network_that_asks_its_input_cannot_be_traced():
    class Asking(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(Incompatible, match="Asking cannot be traced"):
        graph(Asking(), torch.zeros(1, 2))


@pytest.mark.parametrize("bent", [lambda x: x.square(), lambda x: x - x.flatten(1).mean(1).view(-1, 1, 1, 1)])
def test_a_preprocessing_that_does_more_than_scale_is_refused(bent):
    with pytest.raises(Incompatible, match="more than scale and move"):
        check_preprocessing(lambda net: lambda x: net(bent(x)), torch.rand(2, *SHAPE))


def test_a_look_at_the_layers_leaves_a_network_in_training_alone():
    net = _network("batch norm", 0).train()
    before = net[1].running_mean.clone()
    graph(net, torch.randn(8, *SHAPE))
    assert torch.equal(net[1].running_mean, before)
    assert net.training
