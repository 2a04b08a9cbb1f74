"""The goal of an attacker who knows the detectors: what he wanted before, and no alarm.

The model is seen as one with a further answer, "held back" (Carlini and Wagner 2017, arXiv:1705.07263, who
make a detector the last class of a combined classifier): `engine.watching` appends it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from titer.core.outputs import Output
from titer.core.threat import Goal, Threat

_SURE = 1.0
_QUIET = 0.05
_FIRST = 1e3


def held_back(output: Output, logits: Tensor, excess: Tensor) -> Tensor:
    """Return the logits [N, K + 1] of a model with detectors: `excess` float[N] is above 0 where an alarm is raised.

    Of classes the last one is the likeliest exactly where the alarm is raised; of findings it is one more.
    """
    last = excess if output == "labels" else logits.amax(1) + excess
    return torch.cat([logits, last.unsqueeze(1)], dim=1)


@dataclass(frozen=True, slots=True)
class Unseen:
    """The `inner` goal reached, and no alarm; for the logits of `held_back`.

    What is climbed has two forms (Bryniarski, Hingun, Pachuca, Wang, Carlini 2021, arXiv:2106.15023). With a
    `weight`, it is the inner margin, as far as it is worth having, less `weight` times what the detectors see. Without
    one, it is the inner loss where the inner goal is not reached, and otherwise what the detectors see: each step
    has one aim.
    """

    inner: Goal
    output: Output
    weight: float | None = None

    @property
    def name(self) -> str:
        """Short name for tables."""
        return f"{self.inner.name} unseen"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return float[N]: the larger, the nearer the goal."""
        own, excess = self._parts(logits)
        margin = self.inner.margin(own, y)
        loud = (excess + _QUIET).clamp_min(0)
        if self.weight is not None:
            return margin.clamp_max(_SURE) - self.weight * loud
        return torch.where(margin > 0, _FIRST + margin.clamp_max(_QUIET) - loud, self.inner.loss(own, y))

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return float[N], above 0 where the goal is reached: the lesser of the inner margin and the silence."""
        own, excess = self._parts(logits)
        return torch.minimum(self.inner.margin(own, y), -excess * (self.weight or 1.0))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the inner goal is reached, and no alarm is raised."""
        own, excess = self._parts(logits)
        return self.inner.won(own, y) & (excess <= 0)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: rows on which the inner goal makes sense."""
        return self.inner.applies(y)

    def _parts(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        own, last = logits[:, :-1], logits[:, -1]
        return own, last if self.output == "labels" else last - own.amax(1)


def unseen(threat: Threat, output: Output) -> Threat:
    """Return the threat whose attacker must raise no alarm as well."""
    return replace(threat, goal=Unseen(inner=threat.goal, output=output))
