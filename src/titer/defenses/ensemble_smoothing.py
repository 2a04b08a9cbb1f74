"""Ensemble smoothing: several networks answer by their mean probability, and their disagreement is a sign of risk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.model import Model, network_model
from titer.core.plugins import defense as register
from titer.core.plugins import make_defense
from titer.core.protocols import Defense, TrainingData
from titer.training.committee import committee_model, split_share
from titer.training.loop import fit, fresh
from titer.training.objectives import standard
from titer.training.worst_case import trainable

Train = Callable[[Model, nn.Module, TrainingData, Generator], Model]
"""From the undefended model, starting weights and data to a trained member."""

_NOISE = 0.05
_GAIN = 0.2
_SHIFT = 0.08
_TABLE = 2


@register(
    "ensemble-smoothing",
    paper="Lakshminarayanan, Pritzel, Blundell 2017, arXiv:1612.01474, section 2.4; snapshots: arXiv:1704.00109, "
    "section 3; attacked as one network: arXiv:1706.04701, section 5",
)
def ensemble_smoothing(
    *,
    members: Annotated[int, Field(ge=2, le=32)] = 3,
    by: Literal["seeds", "augmentations", "checkpoints"] = "seeds",
    defense: str | dict[str, Any] | None = None,
) -> Defense:
    """Ensemble smoothing.

    The ensemble is one network with a gradient: it hides nothing. `titer.training.committee.disagreement` scores how
    far the members disagree; the share of validation rows on which they do stands in the model's provenance.

    Args:
        members: how many networks.
        by: what makes them differ: `seeds` new weights each, `augmentations` new weights and a training part that is
            changed another way each (noise, shifts, contrast), `checkpoints` one training in as many cycles.
        defense: what trains each member, `adversarial-training` for one; none is standard training.
    """
    inner = None if defense is None else make_defense(defense, "defenses.ensemble-smoothing.defense")
    train_one = _standard if inner is None else _by_defense(inner)

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        made: list[Model] = []
        for index in range(members):
            start = made[-1].net if by == "checkpoints" and made else fresh(net, _seed(rng))
            assert start is not None
            own = _augmented(train, index, rng) if by == "augmentations" else train
            cycle = _cycle(own, members) if by == "checkpoints" else own
            made.append(train_one(model, start, cycle, rng))
        joint = committee_model(model, made)
        split = split_share(joint, train.validation.x)
        return replace(joint, provenance=dict(joint.provenance) | {"disagreement": f"{split:.4f}"})

    return run


def _seed(rng: Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=rng))


def _standard(model: Model, start: nn.Module, train: TrainingData, rng: Generator) -> Model:
    return fit(model, start, train, standard(train), seed=_seed(rng))


def _by_defense(inner: Defense) -> Train:
    def train_one(model: Model, start: nn.Module, train: TrainingData, rng: Generator) -> Model:
        assert model.rebuild is not None
        frozen = network_model(model.name, copy.deepcopy(start), lambda x: x, model.provenance)
        return inner(replace(model, net=frozen.net, logits=model.rebuild(start)), train, rng=rng)

    return train_one


def _cycle(train: TrainingData, members: int) -> TrainingData:
    """Return the data with a member's share of the epochs: each cycle has its own rise and fall of the rate."""
    return replace(train, recipe=replace(train.recipe, epochs=-(-train.recipe.epochs // members)))


def _augmented(train: TrainingData, index: int, rng: Generator) -> TrainingData:
    """Return the data with the training part changed once, the first member's not at all; rules of the domain hold."""
    if index == 0:
        return train
    x = train.train.x
    # A shift would have to move the mask as well, and a table has no neighbours and no light.
    kinds = (_noise,) if x.dim() == _TABLE else (_noise, _gain) if train.output == "mask" else (_noise, _shift, _gain)
    changed = kinds[(index - 1) % len(kinds)](x, rng)
    for rule in train.domain:
        changed = rule.project(changed, changed)
    return replace(train, train=replace(train.train, x=changed))


def _noise(x: Tensor, rng: Generator) -> Tensor:
    """Add normal noise, of a share of each place's standard deviation over the part."""
    return x + _NOISE * x.std(0) * torch.randn(x.shape, generator=rng).to(x)


def _shift(x: Tensor, rng: Generator) -> Tensor:
    """Move each image by a share of its sides at most; what leaves on one side is mirrored on the other."""
    most = [max(1, round(_SHIFT * side)) for side in x.shape[2:]]
    places = len(most)
    wide = functional.pad(x, [end for side in reversed(most) for end in (side, side)], mode="reflect")
    moved = torch.empty_like(x)
    for row in range(len(x)):
        starts = [int(torch.randint(2 * side + 1, (1,), generator=rng)) for side in most]
        window = (slice(None), *(slice(starts[i], starts[i] + x.shape[2 + i]) for i in range(places)))
        moved[row] = wide[row][window]
    return moved


def _gain(x: Tensor, rng: Generator) -> Tensor:
    """Stretch each image's contrast around its mean, by a share at most."""
    dims = tuple(range(1, x.dim()))
    mean = x.mean(dims, keepdim=True)
    factor = 1 + _GAIN * (2 * torch.rand((len(x), *[1] * len(dims)), generator=rng).to(x) - 1)
    return mean + factor * (x - mean)
