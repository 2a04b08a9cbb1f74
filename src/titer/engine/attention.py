"""Grad-CAM: where a convolutional network looks (Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2).

Written here and not taken from a library, as a detector needs it to be differentiable: an attacker who knows the
detector follows the map's own gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import Output
from titer.engine.features import CONVOLUTIONS, hooked, last_layer, pathway

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A model with the convolution whose maps are weighed."""

    model: Model
    layer: nn.Module

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the maps float[N, ...] of x's sides for the classes target int64[N]; with a graph if x asks for it."""
        graph = x.requires_grad and torch.is_grad_enabled()
        maps, logits = self._maps(x if graph else x.detach().requires_grad_())
        if not logits.requires_grad:
            raise Incompatible(f"{self.model.name} gives no gradients, and Grad-CAM needs them")
        with torch.enable_grad():
            spoken = speaks_for(self.model.output, logits, target).sum()
        slope = torch.autograd.grad(spoken, maps, create_graph=graph)[0]
        weights = slope.flatten(2).mean(2).view(*slope.shape[:2], *[1] * (slope.dim() - 2))
        found = (weights * maps).sum(1, keepdim=True).clamp_min(0)
        wide = functional.interpolate(found, size=x.shape[2:], mode=_MODES[x.dim() - 2], align_corners=False)
        return wide.squeeze(1) if graph else wide.squeeze(1).detach()

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def keep(_layer: nn.Module, _given: object, out: Tensor) -> Tensor:
            seen.append(out)
            return out.clone()  # the next layer may work in place, and would change what was kept

        with torch.enable_grad(), hooked(self.layer.register_forward_hook, keep):
            logits = pathway(self.model, differentiable=True)(x)
        return seen[-1], logits


def attention(model: Model, x: Tensor, layer: str | None = None) -> Attention:
    """Return Grad-CAM at the named convolution, or at the one that runs last on the rows x [n, ...].

    Raises:
        Incompatible: no images or signals, no network, no gradients, or no convolution (of that name).
    """
    if x.dim() - 2 not in _MODES:
        raise Incompatible(f"Grad-CAM takes signals, images and volumes, not rows of shape {tuple(x.shape[1:])}")
    found = last_layer(model, x, CONVOLUTIONS) if layer is None else _named(model, layer)
    if found is None:
        raise Incompatible(f"{model.name} has no convolution whose maps Grad-CAM could weigh")
    return Attention(model=model, layer=found)


def speaks_for(output: Output, logits: Tensor, target: Tensor) -> Tensor:
    """Return float[N], what speaks for the classes target int64[N]: a logit, a finding's, the value, a mask's mean."""
    if output == "value":
        return logits[:, 0]
    if output == "mask":
        logits = logits.flatten(2).mean(2)
    return logits.gather(1, target.unsqueeze(1)).squeeze(1)


def decided_class(output: Output, logits: Tensor) -> Tensor:
    """Return int64[N], the class that an explanation is asked for: the likeliest; 0 for a value."""
    if output == "mask":
        logits = logits[:, 1:].flatten(2).mean(2)
        return logits.argmax(1) + 1
    return logits.argmax(1)


def likeness(a: Tensor, b: Tensor) -> Tensor:
    """Return float[N], the cosine of two maps [N, ...]; 1 where both are empty, as then they agree."""
    a, b = a.flatten(1), b.flatten(1)
    lengths = (a.square().sum(1) + _SMALLEST) * (b.square().sum(1) + _SMALLEST)
    return ((a * b).sum(1) + _SMALLEST) / lengths.sqrt()


def _named(model: Model, layer: str) -> nn.Module | None:
    pathway(model, differentiable=False)
    assert model.net is not None
    convolutions = {name: part for name, part in model.net.named_modules() if isinstance(part, CONVOLUTIONS)}
    if layer not in convolutions:
        known = ", ".join(convolutions) or "none"
        raise Incompatible(f"layer = {layer!r} is no convolution of {model.name}: allowed are {known}")
    return convolutions[layer]
