"""Randomised smoothing: a network trained under Gaussian noise, asked several times under noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.engine.smoothing import Contrast, Smoothed, noised
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import Penalty, penalty

_PASSED_ROWS = 512


@defense(
    "randomized-smoothing",
    paper="Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918, section 3; noise per image: arXiv:2110.05365",
)
def randomized_smoothing(
    *,
    sigma: Positive,
    unit: str,
    draws: Count = 8,
    vote: Literal["mean", "majority"] = "mean",
    per_image: bool = False,
    epochs: Count = 20,
    learning_rate: Positive = 1e-3,
    warm_start: bool = True,
) -> Defense:
    """Randomised smoothing.

    The model declares its draws, so that an attacker averages over them. The certifier `smoothing` proves radii for it.

    Args:
        sigma: standard deviation of the noise, in `unit`.
        unit: one of the data set's units.
        draws: noisy copies of an input that one answer rests on.
        vote: `mean` of their probabilities, or `majority` of their classes.
        per_image: noise in proportion to the image's own contrast, between half of sigma and twice; not certifiable.
        epochs: passes over the training part at most, each row under new noise.
        learning_rate: peak of the one-cycle schedule.
        warm_start: begin at the undefended model's weights; False draws them anew.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        _check(model, train, unit)
        assert model.net is not None
        seed = int(torch.randint(2**62, (1,), generator=rng))
        contrast = Contrast(usual=_usual(train.train.x)) if per_image else None
        noise = Smoothed(base=model.logits, sigma=sigma * train.units[unit], draws=draws, vote=vote, contrast=contrast)
        objective = UnderNoise(noise=noise, penalty=penalty(train))
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        before, start = (model, model.net) if warm_start else (anew(model), fresh(model.net, seed))
        base = fit(before, start, replace(train, recipe=recipe), objective, seed=seed)
        smoothed = replace(noise, base=base.logits)
        return replace(base, logits=lambda x: smoothed(generator(seed, "answers"))(x), draw=smoothed, rebuild=None)

    return run


def _check(model: Model, train: TrainingData, unit: str) -> None:
    if model.net is None or model.rebuild is None:
        raise Incompatible(f"{model.name} has no network to train")
    if model.draw is not None or model.surrogate is not None:
        raise Incompatible(f"{model.name} is wrapped by another defence already: smoothing trains, so it comes before")
    if train.output != "classes":
        raise Incompatible(f"randomized-smoothing averages the probabilities of classes, not {train.output}")
    if unit not in train.units:
        raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")


def _usual(x: Tensor) -> float:
    """Return the mean over the images of their standard deviation."""
    return float(x.flatten(1).std(1, correction=0).mean().clamp_min(1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderNoise:
    """The objective: the penalty of one noisy copy of each row; scored in the same way."""

    noise: Smoothed
    penalty: Penalty

    @property
    def key(self) -> str:
        """Return the noise and the penalty."""
        sigma, contrast = self.noise.sigma.flatten().tolist(), self.noise.contrast
        return f"under-noise/{sigma}/{None if contrast is None else contrast.usual}/{self.penalty.key}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the penalty at the noisy batch (Cohen et al., section 3.3)."""
        return self.penalty(logits(noised(x, self.noise.spread(x), rng)), y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return minus the penalty over the noisy validation part."""
        with torch.no_grad():
            rows = part.x.split(_PASSED_ROWS)
            outputs = torch.cat([logits(noised(x, self.noise.spread(x), rng)) for x in rows])
        return -float(self.penalty(outputs.float(), part.y))
