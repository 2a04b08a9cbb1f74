"""A faster stand-in for a network while an attack searches; the network itself has the last word on every find.

Batch norm is folded into the convolution before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2), memory is laid
out channels last, and passes may run in bfloat16. All three change the last bits of a logit, so the engine confirms
each find with the exact network (`Model.exact`), and the judge does so again.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from titer.core.model import Model

Precision = Literal["float32", "bfloat16"]

_AGREEMENT: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 1e-1}
_ROWS = 4
_IMAGE_DIMENSIONS = 4

_made: WeakKeyDictionary[nn.Module, dict[Precision, nn.Module | None]] = WeakKeyDictionary()


def quick(model: Model, x: Tensor, precision: Precision = "float32") -> Model:
    """Return the model with faster logits and `exact` ones beside them, or the model itself where nothing is gained.

    Args:
        model: any model; only frozen networks without randomness and surrogates are changed.
        x: rows [N, ...]; a few are predicted both ways, and a stand-in that differs is not used.
        precision: of the search; `bfloat16` pays where the processor multiplies it faster.
    """
    if model.net is None or model.rebuild is None or model.draw is not None or model.surrogate is not None:
        return model
    if model.access != "gradient" or x.dim() != _IMAGE_DIMENSIONS or not len(x):
        return model
    cache = _made.setdefault(model.net, {})
    if precision not in cache:
        net = _folded(model.net)
        lower = precision == "bfloat16"
        cache[precision] = None if net is None and not lower else _Quick(net or copy.deepcopy(model.net), lower=lower)
    net = cache[precision]
    if net is None:
        return model
    logits = model.rebuild(net)
    with torch.no_grad():
        exact, fast = model.logits(x[:_ROWS]), logits(x[:_ROWS])
    if exact.shape != fast.shape or float((exact - fast).abs().max()) > _AGREEMENT[precision] * (
        1 + float(exact.abs().max())
    ):
        return model
    return replace(model, logits=logits, exact=model.logits)


class _Quick(nn.Module):
    def __init__(self, net: nn.Module, *, lower: bool) -> None:
        super().__init__()
        frozen: Any = net.eval().requires_grad_(requires_grad=False)
        self.net: nn.Module = frozen.to(memory_format=torch.channels_last)
        self.lower = lower

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if not self.lower:
            out: Tensor = self.net(x)
            return out
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            out = self.net(x)
        return out.float()


def _folded(net: nn.Module) -> nn.Module | None:
    """Return a copy with every batch norm behind a convolution folded into it; None where there is none to fold."""
    from torch.fx.experimental.optimization import fuse

    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in net.modules()):
        return None
    try:
        folded: nn.Module = fuse(copy.deepcopy(net))
    except Exception:  # noqa: BLE001 - tracing runs the user's own code, which may do anything
        return None
    return folded
