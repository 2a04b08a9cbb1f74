"""Ensemble disagreement: networks of the same kind, trained from other beginnings, disagree where data are strange."""

from __future__ import annotations

import copy

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State
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

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network of which other members could be trained")
        seeds = torch.randint(2**62, (2 * members,), generator=rng).tolist()
        state: dict[str, Tensor] = {}
        for one in range(members):
            begun = fresh(model.net, seeds[2 * one])
            trained = fit(model, begun, train, standard(train), seed=seeds[2 * one + 1]).net
            assert trained is not None
            state |= {f"{one}/{name}": value for name, value in trained.state_dict().items()}
        return state

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, Logits]:  # noqa: ARG001
        others = [_member(model, state, one) for one in range(members)]

        def hard(x: Tensor) -> Tensor:
            return jensen_shannon(model.output, torch.stack([answers(one, x) for one in (model, *others)]))

        def soft(x: Tensor) -> Tensor:
            own = answers(model, x)
            return torch.stack([reluctance(model.output, own, answers(one, x)) for one in others]).sum(0)

        return hard, soft

    return Keepable(name="ensemble-disagreement", learn=learn, watch=watch)


def _member(model: Model, state: State, number: int) -> Model:
    """Return the member of that number: the model's network and preprocessing with the member's weights."""
    assert model.net is not None
    assert model.rebuild is not None
    net, own = copy.deepcopy(model.net), f"{number}/"
    net.load_state_dict({name.removeprefix(own): value for name, value in state.items() if name.startswith(own)})
    net.eval().requires_grad_(requires_grad=False)
    return Model(
        name=f"member {number}", logits=model.rebuild(net), net=net, rebuild=model.rebuild, output=model.output
    )
