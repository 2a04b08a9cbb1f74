"""Two rows are sent through a user's model before anything is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from titer.assess.adapters import Form, check_range
from titer.core.errors import SpecError, TiterError
from titer.core.outputs import Output
from titer.core.threat import Logits


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
    """A few rows [n, ...] on the model's device, how many classes there are, a seed, and the kind of output.

    `unsteady` is the error for other values for the same rows: of a network a mistake, of a server a failure.
    """

    rows: Tensor
    classes: int
    seed: int
    unsteady: type[TiterError] = SpecError
    output: Output = "classes"

    @property
    def form(self) -> Form:
        """What the model has to return."""
        return Form(output=self.output, classes=self.classes, sides=tuple(self.rows.shape[2:]))

    def run(self, raw: Logits, where: str, again: int = 0) -> Any:
        """Return what comes out for the rows, whatever it is."""
        with torch.no_grad():
            what = f"{where} on rows of shape {tuple(self.rows.shape[1:])}"
            return guarded(lambda: raw(self.rows), self.seed + again, what)

    def check(self, raw: Logits, output: str, where: str) -> None:
        """Check what comes out: of the shape that the data ask for, finite, as `output` says, and the same twice.

        Args:
            raw: returns what `output` says for raw rows.
            output: `logits`, `probabilities`, or `decision`: one-hot, with no scores to check.
            where: the setting's name in messages.

        Raises:
            SpecError: it is something else; says what.
        """
        out = self._checked_shape(self.run(raw, where), where)
        if not bool(out.isfinite().all()):
            raise SpecError(f"{where} returns NaN or infinite values on training rows: allowed are finite numbers")
        check_range(self.form, out, output, where)
        if not torch.allclose(out, self.run(raw, where, again=1), rtol=1e-3, atol=1e-4):
            raise self.unsteady(f"{where} returns other values for the same rows: a model may not be random by itself")

    def _checked_shape(self, out: Any, where: str) -> Tensor:
        wanted = self.form.wanted(len(self.rows))
        if not isinstance(out, Tensor):
            raise SpecError(f"{where} returns a {type(out).__name__} for {len(self.rows)} rows: {wanted}")
        shape = tuple(out.shape)
        if shape[:1] != (len(self.rows),) or not self.form.fits(shape) or not out.is_floating_point():
            raise SpecError(f"{where} returns {out.dtype} {list(shape)} for {len(self.rows)} rows: {wanted}")
        return out
