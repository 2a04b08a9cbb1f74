"""Randomised activations: at every look each unit is dropped by chance, small ones most."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.plugins import Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.threat import Logits
from titer.training.worst_case import trainable

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.PReLU, nn.Tanh, nn.Sigmoid)


@defense(
    "randomized-activations",
    paper="Dhillon, Azizzadenesheli, Lipton, Bernstein, Kossaifi, Khanna, Anandkumar 2018, arXiv:1803.01442, "
    "algorithm 1; broken by arXiv:1802.00420, section 5.2.1",
)
def randomized_activations(*, samples: Positive = 1.0) -> Defense:
    """Stochastic activation pruning.

    Of the units behind each activation function, as many as `samples` says are drawn with replacement, each by its
    share of the summed size; those never drawn are zero, and the others grow so that the mean stays. The
    model declares its draws, and attacks average over them.

    Args:
        samples: units drawn of a layer, as a multiple of its units: more drop fewer.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:  # noqa: ARG001 - the protocol's signature
        net = copy.deepcopy(trainable(model))
        if not any(isinstance(part, ACTIVATIONS) for part in net.modules()):
            names = ", ".join(kind.__name__ for kind in ACTIVATIONS)
            raise Incompatible(f"randomized-activations found no activation layer to draw behind: it knows {names}")
        assert model.rebuild is not None
        logits = model.rebuild(net)
        plain = network_model(model.name, net, lambda x: x, model.provenance)

        def draw(rng: Generator) -> Logits:
            return lambda x: _pruned(net, logits, x, samples, rng)

        return replace(model, logits=logits, net=plain.net, rebuild=None, surrogate=None, draw=draw)

    return run


def _pruned(net: nn.Module, logits: Logits, x: Tensor, samples: float, rng: Generator) -> Tensor:
    """Return the logits of one draw for each row of x [N, ...]; hooks stand behind the activations for this pass."""

    def behind(_part: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        return pruned(out, samples, rng)

    hooks = [part.register_forward_hook(behind) for part in net.modules() if isinstance(part, ACTIVATIONS)]
    try:
        return logits(x)
    finally:
        for hook in hooks:
            hook.remove()


def pruned(units: Tensor, samples: float, rng: Generator) -> Tensor:
    """Return units [N, ...] of which each is kept with chance 1 - (1 - p)^r, and divided by it (algorithm 1).

    p is a unit's share of its row's summed size, r `samples` times the units of a row. Units are kept independently of
    each other, with the chance that they would have among r draws.
    """
    size = units.detach().flatten(1).abs()
    share = size / size.sum(1, keepdim=True).clamp_min(1e-30)
    draws = max(1, round(samples * size.shape[1]))
    chance = -torch.expm1(draws * torch.log1p(-share.clamp_max(1.0 - 1e-6)))
    kept = torch.rand(size.shape, generator=rng).to(chance) < chance
    weight = torch.where(kept, 1.0 / chance.clamp_min(1e-12), 0.0)
    return units * weight.view_as(units)
