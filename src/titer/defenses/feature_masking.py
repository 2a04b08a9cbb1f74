"""Feature masking: of what enters the last layer, only what speaks loudest for the prediction is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.outputs import Output
from titer.core.plugins import Share, defense
from titer.core.protocols import Defense, TrainingData
from titer.training.worst_case import trainable


@defense("feature-masking", paper="after Yan, Zhang, Niu, Feng, Tan, Sugiyama 2021, arXiv:2102.05311, section 3.2")
def feature_masking(*, keep: Share = 0.5) -> Defense:
    """Saliency-guided feature masking.

    The saliency of a unit that enters the last linear layer is what it adds to the prediction's lead: its activation
    times the gradient, which is exact in a linear layer. Units of low saliency are set to zero, input by input. The
    paper masks whole channels by a probe network that is trained beside; here nothing is trained.

    Args:
        keep: share of the units that is kept.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:  # noqa: ARG001 - the protocol's signature
        net = trainable(model)
        masked = with_masked_head(net, keep, model.output)
        assert model.rebuild is not None
        plain = network_model(model.name, masked, lambda x: x, model.provenance)
        return replace(model, logits=model.rebuild(masked), net=plain.net)

    return run


def with_masked_head(net: nn.Module, keep: float, output: Output) -> nn.Module:
    """Return a copy whose last layer is a MaskedHead; Incompatible where the network ends in no linear layer."""
    own = copy.deepcopy(net)
    leaves = [(name, part) for name, part in own.named_modules() if not list(part.children())]
    name, last = next(
        ((name, part) for name, part in reversed(leaves) if next(part.parameters(), None) is not None), ("", own)
    )
    if not isinstance(last, nn.Linear):
        raise Incompatible(f"feature-masking needs a network that ends in a linear layer, not {type(last).__name__}")
    head = MaskedHead(last, keep, output)
    if not name:
        return head
    own.set_submodule(name, head)
    return own


class MaskedHead(nn.Module):
    """A linear layer that sees the `keep` share of its inputs [N, D] that add most to the prediction's lead."""

    def __init__(self, head: nn.Linear, keep: float, output: Output) -> None:
        super().__init__()
        self.head = head
        self.keep = keep
        self.output = output

    def extra_repr(self) -> str:
        """Return what the layer's name does not say: it is part of the architecture that weights are kept under."""
        return f"keep={self.keep}, output={self.output}"

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [N, K] of the masked features.

        Outside training their gradient is that of the unmasked ones (BPDA): the prediction picks the mask, and what is
        left speaks for it, so that the masked gradient hides how to turn the prediction.
        """
        with torch.no_grad():
            saliency = features * _ROADS[self.output](self.head, features)
            kept = max(1, round(self.keep * features.shape[-1]))
            top = saliency.topk(kept, dim=-1).indices
            mask = torch.zeros_like(features).scatter_(-1, top, 1.0)
        out: Tensor = self.head(features * mask)
        if self.training or not torch.is_grad_enabled():
            return out
        plain: Tensor = self.head(features)
        return plain + (out - plain).detach()


def _lead(head: nn.Linear, features: Tensor) -> Tensor:
    """Return the gradient of the predicted class's lead over the mean of all classes, [N, D]."""
    weight = head.weight - head.weight.mean(0)
    return weight[functional.linear(features, head.weight, head.bias).argmax(-1)]


def _own_sign(head: nn.Linear, features: Tensor) -> Tensor:
    """Return the summed gradient of all logits, each away from zero, [N, D]."""
    return functional.linear(features, head.weight, head.bias).sign() @ head.weight


_ROADS: dict[Output, Callable[[nn.Linear, Tensor], Tensor]] = {
    "classes": _lead,
    "labels": _own_sign,
    "value": _own_sign,
    "mask": _lead,
}
