"""How far two answers of models are apart, for each kind of output; and the same without its saturation."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.outputs import Output

_SMALLEST = 1e-12
_SURE = 2.0


def l1_distance(output: Output, a: Tensor, b: Tensor) -> Tensor:
    """Return float[N], the L1 distance of the probabilities of two logits [N, K, ...]: 0 to 2 for classes.

    Of findings it is the mean over them, of a mask the mean over pixels, of a value |a - b|.
    """
    if output == "value":
        return (a - b).abs().flatten(1).sum(1)
    return _averaged((_chances(output, a) - _chances(output, b)).abs().sum(1))


def jensen_shannon(output: Output, answers: Tensor) -> Tensor:
    """Return float[N], the Jensen-Shannon divergence of m answers, logits [m, N, K, ...], in nats; at most log m.

    It is the entropy of their mean less the mean of their entropies (Lin 1991, 10.1109/18.61115, eq. 5.1). Of findings
    it is the mean over them, of a mask the mean over pixels; of a value, the standard deviation of the answers.
    """
    if output == "value":
        return answers.std(0).flatten(1).sum(1)
    chances = torch.stack([_chances(output, one) for one in answers])
    alone = torch.stack([_entropy(one) for one in chances])
    return (_entropy(chances.mean(0)) - alone.mean(0)).clamp_min(0)


def reluctance(output: Output, own: Tensor, other: Tensor) -> Tensor:
    """Return float[N], how far the logits `other` [N, K, ...] are from saying what `own` say, and as surely: 0 if so.

    It is what an attacker lowers to make two answers agree: how much less the class that `own` say leads in `other`,
    up to a lead that is sure enough. It has a slope however sure both are, where float32 rounds that of the
    probabilities to 0; and it moves `other` alone, so that the attacker's own answer is not given up for agreement.
    """
    own = own.detach()
    if output == "value":
        return (other - own).abs().flatten(1).sum(1)
    if output == "labels":
        said = torch.where(own > 0, 1.0, -1.0)
        return ((said * own).clamp_max(_SURE) - said * other).clamp_min(0).mean(1)
    said = own.argmax(1, keepdim=True)
    return _averaged((_lead(own, said).clamp_max(_SURE) - _lead(other, said)).clamp_min(0))


def _lead(logits: Tensor, said: Tensor) -> Tensor:
    """Return how far the class said [N, 1, ...] leads the best other one, [N, ...]."""
    others = logits.scatter(1, said, float("-inf")).amax(1)
    return logits.gather(1, said).squeeze(1) - others


def _chances(output: Output, logits: Tensor) -> Tensor:
    """Return probabilities [N, 2 or K, ...]: of findings, that each is there and that it is not."""
    if output != "labels":
        return logits.softmax(1)
    there = torch.sigmoid(logits)
    return torch.stack([there, 1 - there], dim=1)


def _entropy(chances: Tensor) -> Tensor:
    """Return the entropy of probabilities [N, K, ...] over K, in nats, averaged over the rest: float[N]."""
    return _averaged(-(chances * chances.clamp_min(_SMALLEST).log()).sum(1))


def _averaged(values: Tensor) -> Tensor:
    """Return the mean of each row of [N, ...], float[N]."""
    return values if values.dim() == 1 else values.flatten(1).mean(1)
