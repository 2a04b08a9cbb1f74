"""A small diffusion model of the clean training part, which takes noise of a known strength out of images.

Ho, Jain, Abbeel 2020, arXiv:2006.11239, eq. 4 and 14, on MONAI's network and noise schedule. It is trained on the
strengths that are used alone, from nothing to `noise` of the way to pure noise: a purifier never meets stronger ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.extras import need
from titer.core.model import Model
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.threats.balls import per_row
from titer.training.loop import fit

_TIMES = 1000
_SCORED_ROWS = 256
_IMAGE = 4
_PACKED_SIDE = 14
_MOST_PACKED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """A trained purifier: `estimate` gives the noise in scaled images [N, C, H, W] at times int64[N].

    `kept` float[T] is how much of the image's variance is left at each time (alpha bar); raw values are `low` to
    `high`, scaled to -1 to 1. `weights` and `costs` are what provenance keeps.
    """

    estimate: Callable[[Tensor, Tensor], Tensor]
    kept: Tensor
    low: float
    high: float
    weights: str
    costs: str

    def purified(self, x: Tensor, noise: Tensor | None, *, start: int, steps: int) -> Tensor:
        """Return raw images [N, C, H, W] with noise put in up to time `start`, and taken out in `steps`.

        The way back is DDIM's (Song, Meng, Ermon 2021, arXiv:2010.02502, eq. 12, sigma = 0), so that the noise put in
        is all the randomness there is. None for `noise` puts none in. A gradient flows through all of it.
        """
        scaled = 2.0 * (x - self.low) / (self.high - self.low) - 1.0
        kept = self.kept.to(x)
        times = [round(start * (steps - i) / steps) for i in range(steps)]
        noisy = kept[start].sqrt() * scaled + (0.0 if noise is None else (1.0 - kept[start]).sqrt() * noise)
        for i, time in enumerate(times):
            found = self.estimate(noisy, torch.full((len(x),), time, device=x.device))
            clean = (noisy - (1.0 - kept[time]).sqrt() * found) / kept[time].sqrt()
            later = times[i + 1] if i + 1 < steps else None
            noisy = clean if later is None else kept[later].sqrt() * clean + (1.0 - kept[later]).sqrt() * found
        return (noisy + 1.0) * (0.5 * (self.high - self.low)) + self.low


def diffusion_model(data: TrainingData, *, seed: int, noise: float, width: int, epochs: int, costs: str) -> Diffusion:
    """Return the diffusion model of `data.train.x`, trained or from the cache; labels are not used.

    Args:
        data: parts, recipe, value range, device and cache.
        seed: of the starting weights, batches and noise.
        noise: the strongest noise, as a share of the way to pure noise.
        width: channels of the first level; the second has twice as many.
        epochs: passes over the training part, at most.
        costs: what was spent before, as in a model's provenance.

    Raises:
        Incompatible: rows are no 2-D images.
        SpecError: MONAI is not installed.
    """
    shape = tuple(data.train.x.shape[1:])
    if len(shape) != _IMAGE - 1:
        raise Incompatible(f"a diffusion model takes 2-D images, not rows of shape {shape}")
    low, high = data.value_range or (float(data.train.x.min()), float(data.train.x.max()))
    schedule: Any = need("monai.networks.schedulers", "imaging").DDPMScheduler(num_train_timesteps=_TIMES)
    kept = schedule.alphas_cumprod
    objective = Noised(kept=kept, most=time_of(noise), low=low, high=high)
    blank = Model(
        name="diffusion",
        logits=lambda x: x,
        rebuild=lambda net: cast("Logits", net),
        output="value",
        provenance={"costs": costs},
    )
    unlabelled = replace(
        data,
        train=_unlabelled(data.train),
        validation=_unlabelled(data.validation),
        recipe=replace(data.recipe, epochs=epochs, precision="32-true"),
    )
    trained = fit(blank, _network(shape, width, seed), unlabelled, objective, seed=seed)
    net = cast("nn.Module", trained.net)
    return Diffusion(
        estimate=net, kept=kept, low=low, high=high, weights=trained.provenance["weights"],
        costs=trained.provenance["costs"],
    )  # fmt: skip


def time_of(noise: float) -> int:
    """Return the time, 1 to 999, that is this share of the way to pure noise."""
    return min(max(round(noise * _TIMES), 1), _TIMES - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """The objective: mean squared error of the noise that the network finds (Ho et al. 2020, eq. 14)."""

    kept: Tensor
    most: int
    low: float
    high: float

    @property
    def key(self) -> str:
        """Return the strongest noise and the range."""
        return f"diffusion/{_TIMES}/{self.most}/{self.low}/{self.high}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the error at a drawn time for each row."""
        times = torch.randint(self.most + 1, (len(x),), generator=rng)
        noise = torch.randn(x.shape, generator=rng).to(x)
        kept = per_row(self.kept[times].to(x), x)
        scaled = 2.0 * (x - self.low) / (self.high - self.low) - 1.0
        found = net(kept.sqrt() * scaled + (1.0 - kept).sqrt() * noise, times.to(x.device))
        return functional.mse_loss(found, noise)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return minus the error over the first validation rows."""
        with torch.no_grad():
            return -float(self.loss(net, logits, part.x[:_SCORED_ROWS], part.y, rng))


class _Packed(nn.Module):
    """MONAI's diffusion network on images whose squares of pixels are packed into channels: a quarter of the work."""

    def __init__(self, net: nn.Module, pack: int) -> None:
        super().__init__()
        self.net = net
        self.pack = pack

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        # Sides are padded by their own edge to whole squares, and to an even number of them for the second level.
        height, width = x.shape[2:]
        whole = 2 * self.pack
        wide = functional.pad(x, (0, -width % whole, 0, -height % whole), mode="replicate")
        found = self.net(functional.pixel_unshuffle(wide, self.pack), times)
        return functional.pixel_shuffle(found, self.pack)[..., :height, :width]


def _network(shape: tuple[int, ...], width: int, seed: int) -> nn.Module:
    """Return the untrained network for images [C, H, W]; the global random numbers are not touched."""
    pack = min(max(2 ** round(math.log2(min(shape[1:]) / _PACKED_SIDE)), 1), _MOST_PACKED)
    channels = shape[0] * pack**2
    make: Any = need("monai.networks.nets", "imaging").DiffusionModelUNet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make(
            spatial_dims=2,
            in_channels=channels,
            out_channels=channels,
            channels=(width, 2 * width),
            attention_levels=(False, False),
            num_res_blocks=1,
            norm_num_groups=min(8, width),
        )
    return _Packed(net, pack)


def _unlabelled(part: Samples) -> Samples:
    """Return the part without its labels: the same images with other labels need no other model."""
    return replace(part, y=torch.zeros(len(part), dtype=torch.int64, device=part.x.device), groups={})
