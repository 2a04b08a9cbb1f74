"""A denoising autoencoder of the clean training part: what detectors measure inputs by, and defences clean with.

The network is trained to give back the clean row from one with Gaussian noise (Vincent, Larochelle, Bengio, Manzagol
2008, 10.1145/1390156.1390294, eq. 3 and section 2.3), as MagNet's is (Meng and Chen 2017, arXiv:1705.09064, section
4.1.1). What it cannot give back, or gives back otherwise, is not what clinical data have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.loop import fit, fresh

_SCORED_ROWS = 512
_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How wide the network is, and how strong the noise of its training.

    `width` is half the channels of an image's stages, and a quarter of a table's hidden values. `code` is the share of
    a table's values that its narrowest layer keeps. `noise` is the largest standard deviation of the training's noise,
    in standard deviations of the data.
    """

    width: int = 16
    code: float = 0.5
    noise: float = 0.3


def denoising_autoencoder(
    data: TrainingData, *, seed: int, architecture: Architecture | None = None, epochs: int = 30
) -> Model:
    """Return a Model whose `logits` are reconstructions in raw units, [N, ...] -> [N, ...]; differentiable.

    It is trained by `titer.training.fit` on `data.train.x` alone and stopped on the validation part, in the recipe's
    batches, rate and precision, and cached by content; labels are not used. Its `provenance` holds `weights` and
    `costs`. Where the data have a value range, reconstructions are kept inside it.

    Args:
        data: parts, recipe, value range, device and cache.
        seed: of the starting weights, batches and noise.
        architecture: width, code and noise.
        epochs: passes over the training part, at most.

    Raises:
        Incompatible: fewer than two training rows, or rows of more than four dimensions.
    """
    chosen, shape = architecture or Architecture(), tuple(data.train.x.shape[1:])
    if len(data.train) < 2:
        raise Incompatible("a denoising autoencoder needs two training rows or more")
    if not 1 <= len(shape) <= 4:
        raise Incompatible(f"a denoising autoencoder takes tables, signals, images and volumes, not rows of {shape}")
    centre, spread = _scale(data.train.x)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global numbers
        net = fresh(_network(shape, chosen), seed)
    blank = _model(centre, spread, data.value_range)
    unlabelled = replace(
        data,
        train=_unlabelled(data.train),
        validation=_unlabelled(data.validation),
        recipe=replace(data.recipe, epochs=epochs),
    )
    return fit(blank, net, unlabelled, Denoising(spread=spread, noise=chosen.noise), seed=seed)


def learned(autoencoder: Model, data: TrainingData) -> dict[str, Tensor]:
    """Return all that `restored` needs of an autoencoder trained on `data`: weights, scale and value range."""
    assert autoencoder.net is not None
    centre, spread = _scale(data.train.x)
    limits = {} if data.value_range is None else {"limits": torch.tensor(data.value_range, dtype=torch.float64)}
    weights = {f"net/{name}": value for name, value in autoencoder.net.state_dict().items()}
    return {"centre": centre, "spread": spread, **limits, **weights}


def restored(state: Mapping[str, Tensor], shape: tuple[int, ...], architecture: Architecture) -> Model:
    """Return the autoencoder that `state` was `learned` of; rows have `shape`."""
    low_high = state["limits"].tolist() if "limits" in state else None
    model = _model(state["centre"], state["spread"], None if low_high is None else (low_high[0], low_high[1]))
    with torch.random.fork_rng(devices=[]):
        net = _network(shape, architecture)
    net.load_state_dict({name.removeprefix("net/"): value for name, value in state.items() if "/" in name})
    # The layout that training leaves it in: another one sums in another order.
    net = net.to(state["centre"].device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval().requires_grad_(requires_grad=False)
    assert model.rebuild is not None
    return replace(model, logits=model.rebuild(net), net=net)


def denoised(autoencoder: Model, x: Tensor) -> Tensor:
    """Return the reconstructions of x [N, ...] in raw units; a gradient flows where x asks for one."""
    return autoencoder.logits(x) if len(x) else x.clone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """The objective: mean squared error to the clean row, in units of `spread`, under noise of a random strength.

    Each row has noise of its own standard deviation, uniform from 0 to `noise`: a clean row must be kept as it is.
    """

    spread: Tensor
    noise: float

    @property
    def key(self) -> str:
        """Return the objective's name and settings."""
        return f"denoising/{self.noise}/{self.spread.flatten().tolist()}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the error of the batch's reconstructions."""
        spread = self.spread.to(x)
        strength = self.noise * torch.rand((len(x), *[1] * (x.dim() - 1)), generator=rng)
        noise = (strength * torch.randn(x.shape, generator=rng)).to(x)
        return functional.mse_loss(logits(x + noise * spread) / spread, x / spread)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return minus the error over the validation rows, under noise that is the same for every epoch."""
        parts = torch.split(part.x[:_SCORED_ROWS], _SCORED_ROWS // 4)
        with torch.no_grad():
            errors = [len(x) * float(self.loss(net, logits, x, part.y, rng)) for x in parts]
        return -sum(errors) / max(len(part.x[:_SCORED_ROWS]), 1)


def _unlabelled(part: Samples) -> Samples:
    """Return the part without its labels: the same images with other labels need no other autoencoder."""
    return replace(part, y=torch.zeros(len(part), dtype=torch.int64, device=part.x.device), groups={})


def _scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and spread: of each feature of a table; of all pixels together, as those share a scale."""
    if x.dim() == 2:
        centre, spread = x.mean(0), x.std(0)
    else:
        centre, spread = x.mean(), x.std()
    return centre, torch.where(spread > _SMALLEST, spread, torch.ones_like(spread))


def _model(centre: Tensor, spread: Tensor, limits: tuple[float, float] | None) -> Model:
    def rebuild(net: nn.Module) -> Logits:
        def reconstruct(x: Tensor) -> Tensor:
            middle, scale = centre.to(x), spread.to(x)
            out: Tensor = middle + scale * net((x - middle) / scale)
            return out if limits is None else _kept(out, *limits)

        return reconstruct

    built = f"autoencoder/{centre.flatten().tolist()}/{spread.flatten().tolist()}/{limits}"
    return Model(
        name="denoising autoencoder", logits=lambda x: x, rebuild=rebuild, output="value", provenance={"build": built}
    )


def _kept(out: Tensor, low: float, high: float) -> Tensor:
    """Clip to the range, and let the gradient through: an attacker must not be stopped by a value at its end."""
    return out + (out.clamp(low, high) - out).detach()


def _network(shape: tuple[int, ...], chosen: Architecture) -> nn.Module:
    return _Table(shape[0], chosen) if len(shape) == 1 else _Image(shape[0], len(shape) - 1, chosen.width)


class _Table(nn.Module):
    """A narrowing and widening perceptron; its code keeps a share of the values."""

    def __init__(self, features: int, chosen: Architecture) -> None:
        super().__init__()
        code = max(1, round(features * chosen.code))
        widths = (features, 4 * chosen.width, code, 4 * chosen.width, features)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


class _Image(nn.Module):
    """Two strided convolutions down and two up again, the first stage carried across: for sides of any length.

    Without what is carried across at half the resolution, reconstructions of 28-pixel X-rays lose more than an attack
    of 8 grey levels changes.
    """

    def __init__(self, channels: int, dimensions: int, width: int) -> None:
        super().__init__()
        make = _CONVOLUTIONS[dimensions]
        self.first = make(channels, 2 * width, 4, stride=2, padding=1)
        self.second = make(2 * width, 2 * width, 3, stride=2, padding=1)
        self.code = make(2 * width, 2 * width, 3, padding=1)
        self.across = make(2 * width, 2 * width, 3, padding=1)
        self.last = make(2 * width, channels * 2**dimensions, 3, padding=1)
        self.dimensions = dimensions

    def forward(self, x: Tensor) -> Tensor:
        # An odd side is padded by its own edge to an even one, so that halves are whole.
        even = functional.pad(x, [end for side in reversed(x.shape[2:]) for end in (0, side % 2)], mode="replicate")
        half = functional.silu(self.first(even))
        code = functional.silu(self.code(functional.silu(self.second(half))))
        out = functional.silu(self.across(half + functional.interpolate(code, size=half.shape[2:])))
        whole = _shuffled(self.last(out), self.dimensions)
        for dimension, side in enumerate(x.shape[2:], start=2):
            whole = whole.narrow(dimension, 0, side)
        return whole


def _shuffled(x: Tensor, dimensions: int) -> Tensor:
    """Return [N, C * 2^d, *sides] as [N, C, *(2 * sides)]: each value's channels become its 2^d neighbours."""
    count, sides = len(x), x.shape[2:]
    parts = x.reshape(count, -1, *[2] * dimensions, *sides)
    order = [0, 1, *[axis for one in range(dimensions) for axis in (2 + dimensions + one, 2 + one)]]
    return parts.permute(order).reshape(count, -1, *(2 * side for side in sides))
