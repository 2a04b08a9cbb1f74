"""Two rows are sent through a user's model before anything is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from titer.core.errors import SpecError, TiterError
from titer.core.threat import Logits

_SUM_SLACK = 1e-3
_SUM_EXACT = 1e-5


def guarded(step: Callable[[], Any], seed: int, what: str) -> Any:
    """Run the user's code on random numbers of its own; whatever it raises becomes a SpecError of one line."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return step()
    except TiterError:
        raise
    except Exception as error:  # noqa: BLE001 - code that is not ours may raise anything
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SpecError(f"{what} failed: {type(error).__name__}: {reason}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A few rows [n, ...] on the model's device, how many classes there are, and a seed."""

    rows: Tensor
    classes: int
    seed: int

    def run(self, raw: Logits, where: str, again: int = 0) -> Any:
        """Return what comes out for the rows, whatever it is."""
        with torch.no_grad():
            what = f"{where} on rows of shape {tuple(self.rows.shape[1:])}"
            return guarded(lambda: raw(self.rows), self.seed + again, what)

    def check(self, raw: Logits, output: str, where: str) -> None:
        """Check what comes out: float[n, classes], finite, as `output` says, and the same twice.

        Raises:
            SpecError: it is something else; says what.
        """
        out = self._checked_shape(self.run(raw, where), where)
        if not bool(out.isfinite().all()):
            raise SpecError(f"{where} returns NaN or infinite values on training rows: allowed are finite numbers")
        sums = out.double().sum(1)
        positive = bool((out >= 0).all())
        if output == "probabilities" and not (positive and bool(((sums - 1).abs() <= _SUM_SLACK).all())):
            raise SpecError(
                f"{where} with output = 'probabilities' returns rows that sum to {sums[0]:.4g}, least {out.min():.4g}: "
                "probabilities are not negative and sum to 1; set output = 'logits' if they are logits"
            )
        if output == "logits" and positive and bool(((sums - 1).abs() <= _SUM_EXACT).all()):
            raise SpecError(
                f"{where} with output = 'logits' returns rows that are not negative and sum to 1: "
                "set output = 'probabilities'"
            )
        if not torch.allclose(out, self.run(raw, where, again=1), rtol=1e-3, atol=1e-4):
            raise SpecError(f"{where} returns other values for the same rows: a network may not be random by itself")

    def _checked_shape(self, out: Any, where: str) -> Tensor:
        wanted = f"allowed is a float tensor [{len(self.rows)}, {self.classes}], one logit a class"
        if not isinstance(out, Tensor):
            raise SpecError(f"{where} returns a {type(out).__name__} for {len(self.rows)} rows: {wanted}")
        shape = tuple(out.shape)
        if self.classes == 2 and shape in ((len(self.rows),), (len(self.rows), 1)):
            raise SpecError(
                f"{where}: a network with one logit for two classes is not supported yet: return two logits"
            )
        if shape != (len(self.rows), self.classes) or not out.is_floating_point():
            raise SpecError(f"{where} returns {out.dtype} {list(shape)} for {len(self.rows)} rows: {wanted}")
        return out
