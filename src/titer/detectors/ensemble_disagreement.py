"""Ensemble disagreement: networks of the same kind, trained from other beginnings, disagree where data are strange."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, detector
from titer.core.protocols import Alarm, Detector, TrainingData
from titer.engine.alarm import fitted
from titer.engine.disagreement import jensen_shannon, reluctance
from titer.engine.features import answers
from titer.training.loop import fit, fresh
from titer.training.objectives import standard


@detector(
    "ensemble-disagreement",
    paper="Lakshminarayanan, Pritzel, Blundell 2017, arXiv:1612.01474, section 2.4; evaded by arXiv:1706.04701",
)
def ensemble_disagreement(*, members: Count = 2) -> Detector:
    """Disagreement with other members of an ensemble.

    The score is the Jensen-Shannon divergence of the answers of the model and the members: the mean over members of
    their divergence from the ensemble's answer. Of a value it is the standard deviation of the answers.

    Args:
        members: networks that are trained beside the model, with its recipe, from new weights.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Alarm:
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network of which other members could be trained")
        seeds = torch.randint(2**62, (2 * members,), generator=rng).tolist()
        others = [
            fit(model, fresh(model.net, seeds[2 * one]), train, standard(train), seed=seeds[2 * one + 1])
            for one in range(members)
        ]

        def hard(x: Tensor) -> Tensor:
            return jensen_shannon(model.output, torch.stack([answers(one, x) for one in (model, *others)]))

        def soft(x: Tensor) -> Tensor:
            own = answers(model, x)
            return torch.stack([reluctance(model.output, own, answers(one, x)) for one in others]).sum(0)

        return fitted("ensemble-disagreement", train.train.x, hard, soft)

    return run
