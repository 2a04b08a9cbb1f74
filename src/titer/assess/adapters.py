"""From what a network, a file or a server returns to the logits of the data's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from titer.core.errors import SpecError
from titer.core.outputs import Output

Adapter = Callable[[Tensor], Tensor]

_SMALLEST = 1e-12
_SUM_SLACK = 1e-3
_SUM_EXACT = 1e-5
_EACH = {
    "classes": "one logit a class",
    "labels": "one logit a finding",
    "value": "the value in the label's unit",
    "mask": "one logit a class and pixel",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is expected of a model: the kind of output, and how many logits; `sides` are those of an image."""

    output: Output
    classes: int
    sides: tuple[int, ...] = ()

    def single(self, shape: tuple[int, ...]) -> bool:
        """Return whether a shape [n, ...] is one logit for two classes, that of the second."""
        pixels = self.sides if self.output == "mask" else ()
        two = self.output in ("classes", "mask") and self.classes == 2
        return two and shape[1:] in ((1, *pixels), pixels)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a shape [n, ...] is one of the allowed."""
        pixels = self.sides if self.output == "mask" else ()
        bare = self.classes == 1 and shape[1:] == ()
        return shape[1:] == (self.classes, *pixels) or self.single(shape) or bare

    def wanted(self, rows: int) -> str:
        """Return what is allowed for so many rows, in words."""
        sides = self.sides if self.output == "mask" else ()
        text = f"allowed is a float tensor {[rows, self.classes, *sides]}, {_EACH[self.output]}"
        return text + (f", or {[rows, 1, *sides]}, the second one's alone" if self._two else "")

    @property
    def _two(self) -> bool:
        return self.output in ("classes", "mask") and self.classes == 2


def check_range(form: Form, out: Tensor, returns: str, where: str) -> None:
    """Refuse probabilities that are called logits, and the other way round, where it can be told."""
    if form.output == "value":
        if returns == "probabilities":
            raise SpecError(f"{where} with output = 'probabilities': a value has none; allowed is 'logits'")
        return
    alone = form.output == "labels" or form.single(tuple(out.shape))
    sums = torch.ones(1) if alone else out.double().sum(1)
    positive = bool((out >= 0).all()) and (not alone or bool((out <= 1).all()))
    if returns == "probabilities" and not (positive and bool(((sums - 1).abs() <= _SUM_SLACK).all())):
        what = "between 0 and 1" if alone else "not negative and sum to 1"
        total = "" if alone else f"that sum to {sums.flatten()[0]:.4g}, "
        raise SpecError(
            f"{where} with output = 'probabilities' returns rows {total}least {out.min():.4g}, most {out.max():.4g}: "
            f"probabilities are {what}; set output = 'logits' if they are logits"
        )
    if returns == "logits" and not alone and positive and bool(((sums - 1).abs() <= _SUM_EXACT).all()):
        raise SpecError(
            f"{where} with output = 'logits' returns rows that are not negative and sum to 1: "
            "set output = 'probabilities'"
        )


def adapter(form: Form, returns: str, seen: Any) -> Adapter | None:
    """Return the map to logits of what a model returns, `seen` once; None where they are logits already."""
    shape = tuple(seen.shape) if isinstance(seen, Tensor) else ()
    single, chances = form.single(shape), returns == "probabilities"
    dims = 2 + len(form.sides) if form.output == "mask" else 2
    if not single and not chances and len(shape) == dims:
        return None

    def adapted(out: Tensor) -> Tensor:
        if out.dim() < dims:
            out = out.unsqueeze(1)
        if single:
            return torch.cat([_log(1 - out), _log(out)] if chances else [torch.zeros_like(out), out], dim=1)
        if form.output == "labels" and chances:
            return _log(out) - _log(1 - out)
        return _log(out) if chances else out

    return adapted


class Adapted(nn.Module):
    """A network that returns something else than logits, as one that returns them."""

    def __init__(self, net: nn.Module, adapted: Adapter) -> None:
        super().__init__()
        self.net = net
        self.adapted = adapted

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.adapted(self.net(x))


class InUnits(nn.Module):
    """A network that learns a standardised value, as one that returns it in the label's unit.

    Weights learn numbers near 1; mean and SD of the training part go with the weights.
    """

    target_mean: Tensor
    target_sd: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, sd: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("target_mean", mean)
        self.register_buffer("target_sd", sd)

    @classmethod
    def of(cls, net: nn.Module, y: Tensor) -> InUnits:
        """Return the network in the unit of `y` float32[N]."""
        sd, mean = torch.std_mean(y.float(), correction=0)
        return cls(net, mean, torch.where(sd > 0, sd, 1.0))

    @staticmethod
    def stored(state: dict[str, Tensor]) -> bool:
        """Return whether weights were kept with their unit."""
        return {"target_mean", "target_sd"} <= state.keys()

    def forward(self, x: Tensor) -> Tensor:
        """Return the value, as the network shapes it."""
        out: Tensor = self.net(x)
        return out.float() * self.target_sd + self.target_mean


def _log(chances: Tensor) -> Tensor:
    return chances.clamp_min(_SMALLEST).log()
