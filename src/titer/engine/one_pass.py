"""One pass for all who look at the same input: the model's answer, and the features that detectors read on its way."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from titer.core.model import Model
from titer.core.threat import Logits


class OnePass:
    """Logits that remember the last input; whose layers are read, are read in the same pass.

    Only passes without a graph are remembered: who asks for a gradient gets a pass of his own. The last input is known
    by identity and version, never by its values; what is returned is shared, and not to be changed.
    """

    def __init__(self, run: Logits) -> None:
        self.run = run
        self._seen: tuple[Tensor, int] | None = None
        self._logits: Tensor | None = None
        self._entered: dict[nn.Module, list[Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of raw inputs x [N, ...]."""
        if _own_pass(x):
            return self.run(x)
        if not self._knows(x):
            self._pass(x)
        assert self._logits is not None
        return self._logits

    def entering(self, layer: nn.Module, x: Tensor) -> list[Tensor]:
        """Return what enters `layer` in the pass of x [N, ...], one tensor each time that it runs."""
        if layer not in self._entered or not self._knows(x):
            self._entered.setdefault(layer, [])
            self._pass(x)
        return self._entered[layer]

    def _knows(self, x: Tensor) -> bool:
        return self._seen is not None and self._seen[0] is x and self._seen[1] == x._version

    def _pass(self, x: Tensor) -> None:
        self._seen, self._entered = None, {layer: [] for layer in self._entered}
        handles = [
            layer.register_forward_pre_hook(lambda _layer, given, kept=kept: kept.append(given[0]))
            for layer, kept in self._entered.items()
        ]
        try:
            with torch.no_grad():
                self._logits, self._seen = self.run(x), (x, x._version)
        finally:
            for handle in handles:
                handle.remove()


def sharing(model: Model) -> Model:
    """Return the model with a memory for its last pass: detectors fitted on it look at an input together.

    Ask it for the answer to an input first, then the detectors for their scores of the very same tensor.
    """
    return replace(model, logits=OnePass(model.logits))


def unshared(logits: Logits) -> Logits:
    """Return the pass that always runs, for who hangs something of his own on it."""
    return logits.run if isinstance(logits, OnePass) else logits


def _own_pass(x: Tensor) -> bool:
    return x.is_inference() or (torch.is_grad_enabled() and x.requires_grad)
