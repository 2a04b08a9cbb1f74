"""What stands in front of a model: the same transform for the judge, for draws, and for an attacker who knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.threat import Logits

Transform = Callable[[Tensor, Generator], Tensor]
"""From inputs [N, ...] and a source of draws to inputs [N, ...]."""


def in_front(model: Model, transform: Logits, soft: Logits | None = None) -> Model:
    """Return the model behind a transform of its input [N, ...] to [N, ...].

    Args:
        model: any model; its draws and its surrogate stand behind the transform.
        transform: what the defended model does.
        soft: a differentiable stand-in, whose values are the transform's or near them (BPDA, Athalye et al. 2018,
            section 4.1); None where the transform has a gradient itself.
    """
    draw, seen = model.draw, soft or transform
    open_to_gradients = model.access == "gradient" and (soft is not None or model.surrogate is not None)
    return replace(
        model,
        logits=_behind(transform, model.logits),
        surrogate=_behind(seen, model.surrogate or model.logits) if open_to_gradients else None,
        rebuild=None,
        draw=None if draw is None else lambda rng: _behind(seen, draw(rng)),
    )


def drawn_in_front(model: Model, transform: Transform, at_rest: Logits) -> Model:
    """Return the model behind a random transform: attacks average over its draws.

    Args:
        model: any model.
        transform: from inputs [N, ...] and a source of draws to inputs; it has a gradient, or a stand-in inside.
        at_rest: what stands in its place where nobody draws.
    """
    draw, plain = model.draw, model.surrogate or model.logits

    def drawn(rng: Generator) -> Logits:
        logits = plain if draw is None else draw(rng)
        return lambda x: logits(transform(x, rng))

    return replace(model, logits=_behind(at_rest, model.logits), surrogate=None, rebuild=None, draw=drawn)


def straight_through(transform: Logits) -> Logits:
    """Return the transform forward and the identity backward (Bengio, Leonard, Courville 2013, arXiv:1308.3432)."""

    def soft(x: Tensor) -> Tensor:
        return x + (transform(x) - x).detach()

    return soft


def _behind(transform: Logits, logits: Logits) -> Logits:
    return lambda x: logits(transform(x))
