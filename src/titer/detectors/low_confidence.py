"""Low confidence: the model itself is not sure. What every other detector has to beat, at next to no cost."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.plugins import detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State
from titer.engine.features import answers


@detector("low-confidence", paper="Hendrycks, Gimpel 2017, arXiv:1610.02136, section 3; evaded by arXiv:1705.07263")
def low_confidence() -> Detector:
    """Low confidence of the model.

    The score is minus the lead, in logits, of the class that the model says over the next one; of findings minus the
    distance of the least sure one from 0. The paper takes the largest probability, which float32 rounds to 1.
    """

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:  # noqa: ARG001 - there is nothing to learn
        if model.access == "decision":
            raise Incompatible("low-confidence reads scores, and this model gives decisions alone")
        if model.output not in ("classes", "labels"):
            raise Incompatible(f"low-confidence is of classes and findings, not of a {model.output}")
        return {}

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, None]:  # noqa: ARG001
        return lambda x: -_sureness(model.output, answers(model, x)), None

    return Keepable(name="low-confidence", learn=learn, watch=watch)


def _sureness(output: Output, logits: Tensor) -> Tensor:
    """Return float[N], how far logits [N, K] are from saying something else."""
    if output == "labels":
        return logits.abs().amin(1)
    best = torch.topk(logits, 2, dim=1).values
    return best[:, 0] - best[:, 1]
