"""Networks that answer together: their mean probability, and how far they disagree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.outputs import Output, predicted, probabilities
from titer.training.weights import digest

_PASSED_ROWS = 512


class Committee(nn.Module):
    """The logits of the members' mean probability; of a value, their mean."""

    def __init__(self, members: Sequence[nn.Module], output: Output) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.output = output

    def extra_repr(self) -> str:
        """Return what the members' own names do not say."""
        return f"output={self.output}"

    def votes(self, x: Tensor) -> Tensor:
        """Return each member's logits, [M, N, K, ...]."""
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, K, ...] whose softmax, or sigmoid, is the mean of the members'."""
        return together(self.votes(x), self.output)


class _Votes(nn.Module):
    """The members' logits with the rows first, [N, M, K, ...], for whoever wants them one by one."""

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        self.committee = committee

    def forward(self, x: Tensor) -> Tensor:
        return self.committee.votes(x).transpose(0, 1)


def together(votes: Tensor, output: Output) -> Tensor:
    """Return the logits [N, K, ...] of the mean probability of votes [M, N, K, ...].

    Sums are taken over logarithms, so that members who are sure hide no gradient.
    """
    if output == "value":
        return votes.mean(0)
    if output == "labels":
        return functional.logsigmoid(votes).logsumexp(0) - functional.logsigmoid(-votes).logsumexp(0)
    # Up to log M, which is the same for all classes.
    return votes.log_softmax(2).logsumexp(0)


def committee_model(model: Model, members: Sequence[Model]) -> Model:
    """Return one model of several that share the preprocessing of `model`; its network is a Committee.

    Raises:
        Incompatible: a member has no network of its own, as one behind a transform or drawn at random.
    """
    for member in members:
        if member.net is None or member.rebuild is None or member.draw is not None:
            raise Incompatible(f"a member of {model.name}'s ensemble is no plain network: a committee holds networks")
    assert model.rebuild is not None
    committee = Committee([cast("nn.Module", member.net) for member in members], model.output)
    plain = network_model(model.name, committee, lambda x: x, _provenance(model, members, committee))
    return Model(
        name=model.name,
        logits=model.rebuild(committee),
        net=plain.net,
        rebuild=model.rebuild,
        output=model.output,
        provenance=plain.provenance,
    )


def disagreement(model: Model, x: Tensor) -> Tensor:
    """Return float[N] for raw inputs [N, ...], how far the members of a committee disagree: a sign of risk.

    The Jensen-Shannon divergence of their probabilities, between 0 and log M (Lakshminarayanan et al. 2017,
    arXiv:1612.01474, section 3.5), its mean over findings or pixels; of a value, the standard deviation.

    Raises:
        Incompatible: the model is no committee.
    """
    if not isinstance(model.net, Committee) or model.rebuild is None:
        raise Incompatible(f"{model.name} is no ensemble: there is nobody to disagree")
    votes = model.rebuild(_Votes(model.net))
    return torch.cat([_apart(votes(part).transpose(0, 1), model.output) for part in x.split(_PASSED_ROWS)])


def _apart(votes: Tensor, output: Output) -> Tensor:
    """Return float[N] for votes [M, N, K, ...]."""
    if output == "value":
        return votes.squeeze(2).std(0)
    chances = torch.stack([probabilities(output, one) for one in votes])
    if output == "labels":
        spread = _entropy(chances.mean(0)) + _entropy(1 - chances.mean(0))
        return (spread - (_entropy(chances) + _entropy(1 - chances)).mean(0)).flatten(1).mean(1)
    apart = _entropy(chances.mean(0)).sum(1) - _entropy(chances).sum(2).mean(0)
    return apart if apart.dim() == 1 else apart.flatten(1).mean(1)


def _entropy(chances: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(chances)
    return entropy


def split_share(model: Model, x: Tensor) -> float:
    """Return the share of rows whose members report different things; of a value, where they differ at all."""
    if not isinstance(model.net, Committee) or model.rebuild is None:
        raise Incompatible(f"{model.name} is no ensemble: there is nobody to disagree")
    votes = model.rebuild(_Votes(model.net))
    with torch.no_grad():
        shares = [_split(votes(part).transpose(0, 1), model.output) for part in x.split(_PASSED_ROWS)]
    return float(torch.cat(shares).float().mean())


def _split(votes: Tensor, output: Output) -> Tensor:
    reported = torch.stack([predicted(output, one) for one in votes])
    return (reported != reported[0]).transpose(0, 1).flatten(1).any(1)


def _provenance(model: Model, members: Sequence[Model], committee: Committee) -> dict[str, str]:
    """Return what is known of the ensemble: all members' costs count, those they share once."""
    shared = json.loads(model.provenance.get("costs", "[]"))
    own = [json.loads(member.provenance.get("costs", "[]"))[len(shared) :] for member in members]
    return dict(model.provenance) | {
        "weights": digest(committee.state_dict()),
        "training": ",".join(member.provenance.get("training", "") for member in members),
        "costs": json.dumps([*shared, *(cost for costs in own for cost in costs)]),
    }
