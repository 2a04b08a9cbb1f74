"""A faster stand-in for a network while an attack searches; the network itself has the last word on every find.

Batch norm is folded into the convolution before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2), memory is laid
out channels last, and passes may run in bfloat16. All three change the last bits of a logit, so the engine confirms
each find with the exact network (`Model.exact`), and the judge does so again. Attacks on decisions ask the exact
network itself (`engine.decisions`): every second answer of a walk along the boundary would have to be confirmed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from titer.core.model import Model

Precision = Literal["float32", "bfloat16"]

_AGREEMENT: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 1e-1}
_ROWS = 4
_IMAGE_DIMENSIONS = 4
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

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
        cache[precision] = _made_quick(model.net, lower=precision == "bfloat16")
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


def _made_quick(net: nn.Module, *, lower: bool) -> nn.Module | None:
    """Return the stand-in; None where there is neither a convolution to lay out anew nor a lower precision to use."""
    if not lower and not any(isinstance(part, nn.Conv2d) for part in net.modules()):
        return None
    try:
        return _Quick(_folded(copy.deepcopy(net)), lower=lower)
    except Exception:  # noqa: BLE001 - copying runs the user's own code, which may do anything
        return None


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


def _folded(net: nn.Module) -> nn.Module:
    """Return the network with every batch norm behind a convolution folded into it, or as it is, if none can be."""
    if not any(isinstance(part, _NORMS) for part in net.modules()):
        return net
    try:
        traced = fx.symbolic_trace(net)
    except Exception:  # noqa: BLE001 - tracing runs the user's own code, which may do anything
        return net
    for node in [one for one in traced.graph.nodes if one.op == "call_module"]:
        before, norm = node.args[0] if node.args else None, traced.get_submodule(node.target)
        if not isinstance(norm, _NORMS) or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        convolution = traced.get_submodule(str(before.target))
        if isinstance(convolution, _CONVOLUTIONS) and len(before.users) == 1 and norm.track_running_stats:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced
