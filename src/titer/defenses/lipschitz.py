"""Lipschitz-constrained networks: layers that cannot stretch a change, so that logits move by no more than stated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.plugins import Count, Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.threat import Logits
from titer.engine.bound_graph import Graph, graph
from titer.engine.bound_layers import Affine, Convolved, Dense, Normalized, Shape
from titer.engine.lipschitz import constant as lipschitz_constant
from titer.engine.lipschitz import matrix_norm, measured, overlap
from titer.engine.regions import check_preprocessing, seen_by
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import standard
from titer.training.weights import digest

_ROUNDED = 1.0 + 1e-4
"""So that what is measured at the end, itself rounded up, is not above what was asked for."""


@defense(
    "lipschitz",
    paper="Anil, Lucas, Grosse 2019, arXiv:1811.05381; spectral norm: Miyato et al. 2018, arXiv:1802.05957, eq. 8",
)
def lipschitz(
    *,
    constant: Positive,
    unit: str,
    layers: Literal["orthogonal", "spectral"] = "orthogonal",
    epochs: Count = 30,
    learning_rate: Positive = 5e-3,
) -> Defense:
    """Lipschitz-constrained network.

    The logits move by at most `constant` for each unit that the input moves by in l2, both measured by their norm: a
    prediction holds within lead / (sqrt(2) constant). Every linear and convolutional layer is kept at norm 1, and
    one factor after the last makes up the constant. The network is trained from new weights.

    Args:
        constant: the Lipschitz constant, in logits per `unit`.
        unit: one of the data set's units.
        layers: linear layers `orthogonal`, or kept by their `spectral` norm as convolutions always are.
        epochs: passes over the training part at most.
        learning_rate: peak of the one-cycle schedule.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network to train")
        if unit not in train.units:
            raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")
        seed = int(torch.randint(2**62, (1,), generator=rng))
        x = train.train.x[:1]
        steepest = _steepest(model.rebuild, x, train.units[unit])
        net = _constrained(fresh(model.net, seed), seen_by(model.rebuild, x), constant / steepest, layers, seed)
        # No decay: the norms are held anyway, and torch's orthogonal keeps signs in the weights that decay would lose.
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate, weight_decay=0.0)
        constrained = fit(anew(model), net, replace(train, recipe=recipe), standard(train), seed=seed)
        assert constrained.net is not None
        plain = _plain(constrained.net, model.net)
        stated = lipschitz_constant(graph(plain, seen_by(model.rebuild, x)), measured) * steepest
        return _with(constrained, plain, {"lipschitz": f"{stated:.6g} logits per {unit} in l2"})

    return run


def _with(model: Model, net: nn.Module, said: dict[str, str]) -> Model:
    assert model.rebuild is not None
    weights = digest(net.state_dict())
    provenance = dict(model.provenance) | {"weights": weights} | {k: f"{v}, weights {weights}" for k, v in said.items()}
    frozen = network_model(model.name, net, lambda x: x, provenance)
    return replace(model, net=frozen.net, logits=model.rebuild(net), provenance=provenance)


def _steepest(rebuild: Callable[[nn.Module], Logits], x: Tensor, unit: Tensor) -> float:
    """Return how far one unit of change moves an input of the network at most: the preprocessing's own constant."""
    check_preprocessing(rebuild, x)
    moved = (seen_by(rebuild, x + unit.to(x)) - seen_by(rebuild, x)).abs().max()
    return float(moved.clamp_min(1e-12))


def _constrained(net: nn.Module, x: Tensor, constant: float, kind: str, seed: int) -> nn.Module:
    """Return the network with its layers parametrised, and a factor behind the last that makes up the constant."""
    layers = graph(net, x)
    last = layers.steps[-1]
    if not isinstance(last.layer, Dense):
        raise Incompatible(f"lipschitz scales a last linear layer, and this network ends in {last.name!r}")
    _refuse_norms(layers)
    rest = lipschitz_constant(layers, _kept)
    # The parametrisations draw their start, which no argument of theirs carries.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in layers.steps:
            if isinstance(step.layer, Dense) and kind == "orthogonal":
                orthogonal(step.layer.part)
            elif isinstance(step.layer, Dense | Convolved):
                spectral_norm(step.layer.part, n_power_iterations=1)
    parametrize.register_parametrization(last.layer.part, "weight", Factor(constant / rest / _ROUNDED))
    return net


def _refuse_norms(layers: Graph) -> None:
    for step in layers.steps:
        if isinstance(step.layer, Normalized):
            raise Incompatible(
                f"lipschitz cannot hold layer {step.name!r} (batch norm): its scale follows the data; supported are "
                "networks without batch norm, such as small-cnn and mlp"
            )


def _kept(layer: Affine, shape: Shape) -> float:
    """Return the norm that a layer is kept to: 1 for its weight as a matrix, times what patches overlap."""
    if isinstance(layer, Dense):
        return 1.0
    return overlap(layer.part) if isinstance(layer, Convolved) else measured(layer, shape)


class Factor(nn.Module):
    """A weight times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight times the factor."""
        return weight * self.factor

    def extra_repr(self) -> str:
        """Return the factor, which the key of the trained weights depends on."""
        return f"{self.factor}"


def _plain(net: nn.Module, like: nn.Module) -> nn.Module:
    """Return `like` with the weights as they came out, at norm 1: power iterations only come near to a norm."""
    plain = copy.deepcopy(like)
    state = {name: value.clone() for name, value in net.state_dict().items() if "parametrizations." not in name}
    for name, part in net.named_modules():
        if not parametrize.is_parametrized(part, "weight"):
            continue
        given = cast("parametrize.ParametrizationList", cast("nn.ModuleDict", part.parametrizations)["weight"])
        allowed = next((one.factor for one in given if isinstance(one, Factor)), 1.0)
        weight = cast("Tensor", part.weight).detach()
        state[f"{name}.weight"] = weight / max(1.0, matrix_norm(weight) / allowed)
    plain.load_state_dict(state)
    return plain
