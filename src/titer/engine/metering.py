"""Counts forward and backward passes per sample, whatever the attack does with the model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from titer.core.model import Model
from titer.core.threat import Logits


class Meter:
    """Passes spent on each of `rows` samples: `forwards` and `backwards`, float64[rows].

    An attack built on the engine says which rows it works on. For any other attack a batch of all rows costs each row
    one pass, and a smaller batch is shared evenly, since nobody knows whose it was.
    """

    def __init__(self, rows: int) -> None:
        self.forwards = torch.zeros(rows, dtype=torch.float64)
        self.backwards = torch.zeros(rows, dtype=torch.float64)
        self._rows = rows
        self._attended: Tensor | None = None

    def attend(self, rows: Tensor) -> None:
        """Attribute the coming passes to these rows, int64[n]."""
        self._attended = rows.cpu()

    def watch(self, model: Model) -> Model:
        """Return the same model with every pass counted."""
        draw = model.draw
        return replace(
            model,
            logits=self._counted(model.logits),
            surrogate=None if model.surrogate is None else self._counted(model.surrogate),
            exact=None if model.exact is None else self._counted(model.exact),
            draw=None if draw is None else lambda rng: self._counted(draw(rng)),
            meter=self,
        )

    def _counted(self, logits: Logits) -> Logits:
        def counted(x: Tensor) -> Tensor:
            attended = self._attended
            self._add(self.forwards, len(x), attended)
            out = logits(x)
            if out.requires_grad:
                out.register_hook(lambda _grad: self._add(self.backwards, len(x), attended))
            return out

        return counted

    def _add(self, counts: Tensor, passes: int, attended: Tensor | None) -> None:
        if attended is not None and len(attended) == passes:
            counts.index_add_(0, attended, torch.ones(passes, dtype=torch.float64))
        else:
            counts += passes / max(self._rows, 1)
