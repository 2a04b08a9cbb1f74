"""A model as an attacker sees it: logits of the raw input, and no more than the access allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from titer.core.errors import Incompatible
from titer.core.outputs import Output, decided
from titer.core.threat import RANK, Access, Logits

if TYPE_CHECKING:
    from torch import Generator


class Attention(Protocol):
    """Where a meter is told which rows of the batch the next passes are for."""

    def attend(self, rows: Tensor) -> None:
        """Attribute the coming passes to these rows, int64[n]."""
        ...


class Evaluation(NamedTuple):
    """One forward and one backward pass: `logits` [N, K] and the input gradient `grad`, shaped as the input."""

    logits: Tensor
    grad: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Logits of the RAW input, [N, ...] -> [N, K]; preprocessing is inside, so eps is in grey levels, HU, mV ...

    `net` is None for remote, ONNX or tree models. `rebuild` gives the same preprocessing with new weights. `draw` is
    set if and only if the model is randomised: attacks average over draws (expectation over transformation, Athalye et
    al. 2018). `surrogate` is a differentiable stand-in for the backward pass (BPDA, same paper, section 4.1). `exact`
    is set where `logits` is a faster stand-in (bfloat16, folded layers): it alone says whether an input has won.
    """

    name: str
    logits: Logits
    net: nn.Module | None = None
    rebuild: Callable[[nn.Module], Logits] | None = None
    draw: Callable[[Generator], Logits] | None = None
    surrogate: Logits | None = None
    exact: Logits | None = None
    output: Output = "classes"
    access: Access = "gradient"
    provenance: Mapping[str, str] = field(default_factory=dict)
    meter: Attention | None = None

    def limited(self, access: Access) -> Model:
        """Return what an attacker with `access` can compute; anything else raises Incompatible."""
        access = min(access, self.access, key=RANK.__getitem__)
        if access == "gradient":
            return self
        draw, exact = self.draw, self.exact
        return replace(
            self,
            logits=_closed(self.logits, access, self.output),
            net=None,
            rebuild=None,
            surrogate=None,
            exact=None if exact is None else _closed(exact, access, self.output),
            draw=None if draw is None else lambda rng: _closed(draw(rng), access, self.output),
            access=access,
        )

    def exactly(self) -> Model:
        """Return the model that answers by its exact logits alone, where it has a faster stand-in for them."""
        return self if self.exact is None else replace(self, logits=self.exact, exact=None)

    def attend(self, rows: Tensor) -> None:
        """Tell the meter, where there is one, for which rows the next passes are."""
        if self.meter is not None:
            self.meter.attend(rows)

    def grad(self, loss: Logits, x: Tensor, *, draws: int = 1, rng: Generator | None = None) -> Tensor:
        """Return the gradient of `loss(logits)` (float[N]) for `x`; see `evaluate`."""
        return self.evaluate(loss, x, draws=draws, rng=rng).grad

    def evaluate(self, loss: Logits, x: Tensor, *, draws: int = 1, rng: Generator | None = None) -> Evaluation:
        """Return logits and input gradient of `loss(logits)` in one forward and one backward pass a draw.

        Args:
            loss: from logits [N, K] to float[N].
            x: raw inputs [N, ...].
            draws: how many draws of a randomised model are averaged; 1 for every other model.
            rng: the source of the draws; required for a randomised model.

        Raises:
            Incompatible: the access holds no gradient, or no gradient flows to the input.
        """
        if self.access != "gradient":
            raise Incompatible(f"{self.name}: a gradient was asked for under access = {self.access!r}")
        if self.draw is not None and rng is None:
            raise Incompatible(f"{self.name} is randomised: its gradient needs a source of draws")
        x = x.detach().requires_grad_()
        total: Tensor | None = None
        mean: Tensor | None = None
        for _ in range(draws if self.draw is not None else 1):
            logits = self._backward_path(rng)(x)
            grad = self._input_gradient(loss(logits).sum(), x)
            total = grad if total is None else total + grad
            mean = logits.detach() if mean is None else mean + logits.detach()
        assert total is not None
        assert mean is not None
        if self.draw is None or draws == 1:
            return Evaluation(mean, total)
        return Evaluation(mean / draws, total / draws)

    def _backward_path(self, rng: Generator | None) -> Logits:
        if self.draw is not None:
            assert rng is not None
            return self.draw(rng)
        return self.surrogate or self.logits

    def _input_gradient(self, value: Tensor, x: Tensor) -> Tensor:
        if not value.requires_grad:
            raise Incompatible(f"{self.name} is not differentiable and declares no surrogate (BPDA)")
        return torch.autograd.grad(value, x)[0]


def _closed(logits: Logits, access: Access, output: Output) -> Logits:
    """Return the logits without their graph; under `decision` no more than the decision."""

    def closed(x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise Incompatible(f"a gradient was asked for under access = {access!r}")
        with torch.no_grad():
            out = logits(x)
        return out if access == "scores" else decided(output, out)

    return closed


def network_model(
    name: str, net: nn.Module, preprocess: Callable[[Tensor], Tensor], provenance: Mapping[str, str]
) -> Model:
    """Return a Model around `net`, frozen and in evaluation mode.

    Frozen, because a forward pass keeps what weight gradients need and attacks never ask for them.
    """
    net.eval().requires_grad_(requires_grad=False)

    def rebuild(other: nn.Module) -> Logits:
        return lambda x: other(preprocess(x))

    return Model(name=name, logits=rebuild(net), net=net, rebuild=rebuild, provenance=dict(provenance))
