"""The attacker between modality and archive: proposes pixels within a budget, and must store them as whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.randomness import generator
from titer.core.threat import Goal, Threat
from titer.engine.watching import Watch, evading, guarded
from titer.guard.judge.models import load
from titer.guard.operate.casestudy.models import Cohort
from titer.guard.operate.casestudy.plan import Strike
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.unseen import unseen

_HAIR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Endless:
    """A goal that is never reached: the attack goes on to its last step.

    An attack that stops at its first success leaves an image at the very edge of two classes, which any detector of
    low confidence sees; no attacker has to stop there.
    """

    inner: Goal

    @property
    def name(self) -> str:
        """The goal's own name."""
        return self.inner.name

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the goal's loss, float[N]."""
        return self.inner.loss(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the goal's margin, float[N]."""
        return self.inner.margin(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Say of no row that it has won, bool[N]."""
        return torch.zeros_like(self.inner.won(logits, y))

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: where the goal makes sense."""
        return self.inner.applies(y)


def struck(model: Model, bundle: Path, cohort: Cohort, strike: Strike, seed: int) -> Tensor:
    """Return the images of the test part after an attack, whole grey levels [N, 1, H, W].

    Args:
        model: what is attacked, with full knowledge of its weights.
        bundle: of the stage; an adaptive attacker knows its detectors and their thresholds.
        cohort: gives images, labels and the rules of the domain.
        strike: attack and budget.
        seed: of the attack's draws.
    """
    x, y = cohort.test.x, cohort.test.y
    size = cohort.training.units[strike.unit]
    threat = Threat(
        family="linf",
        budget=ball("linf", strike.eps, size, strike.unit),
        domain=cohort.data.domain,
        goal=Endless(inner=AnyError()),
    )
    rng = generator(seed, "attack", strike.label)
    attack = make_attack(strike.attack)
    if strike.adaptive:
        hidden = unseen(replace(threat, goal=AnyError()), model.output)
        found = evading(attack)(guarded(model, watches(bundle)), x, y, hidden, rng=rng)
    else:
        found = attack(model, x, y, threat, rng=rng)
    return whole(found, x, float(strike.eps * size))


def whole(found: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return the nearest whole grey levels to `found` that keep the budget of `eps` grey levels around whole `x`."""
    most = float(np.floor(eps + _HAIR))
    return (x + (found - x).round().clamp(-most, most)).round().clamp(0, 255)


def watches(bundle: Path) -> tuple[Watch, ...]:
    """Return the detectors of a bundle with the thresholds of a verdict on one image."""
    loaded = load(bundle)
    limits = loaded.limits(1)
    return tuple(
        Watch(
            alarm=alarm,
            threshold=limits[alarm.name],
            spread=max(float(limits[alarm.name] - np.median(loaded.clean[:, place])), _HAIR),
        )
        for place, alarm in enumerate(loaded.alarms)
    )
