"""What a network computes on its way to the logits: the features before its last layer, read while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.threat import Logits
from titer.engine.one_pass import OnePass, unshared

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_PASSED_ROWS = 250
_PROBED = 2


def pathway(model: Model, *, differentiable: bool) -> Logits:
    """Return the pass that runs the model's network, sanitization included: the surrogate where a gradient is wanted.

    A randomised model is looked at without its noise: a detector must say the same of the same input.

    Raises:
        Incompatible: the model has no network that could be looked into, or gives no gradients.
    """
    if model.net is None or model.access != "gradient":
        raise Incompatible(f"{model.name} has no network that could be looked into")
    if model.draw is not None:
        if model.rebuild is None:
            raise Incompatible(f"{model.name} is randomised, and its network cannot be run without the noise")
        return model.rebuild(model.net)
    return model.surrogate if differentiable and model.surrogate is not None else unshared(model.logits)


def penultimate(model: Model, x: Tensor) -> Logits:
    """Return the function from raw inputs [N, ...] to the features float[N, D] that enter the last linear layer.

    Of a network without one, they are what enters the last convolution, averaged over places. `x` [n, ...] are a few
    rows that show the order in which layers run.

    Raises:
        Incompatible: there is no network, or neither kind of layer in it.
    """
    layer = last_layer(model, x, (nn.Linear,)) or last_layer(model, x, CONVOLUTIONS)
    if layer is None:
        raise Incompatible(f"{model.name} has neither a linear layer nor a convolution whose features could be read")
    return lambda rows: _features(model, layer, rows)


def last_layer(model: Model, x: Tensor, kinds: tuple[type[nn.Module], ...]) -> nn.Module | None:
    """Return the layer of one of these kinds that runs last on x [n, ...], or None; raise Incompatible as `pathway`."""
    run = pathway(model, differentiable=False)
    assert model.net is not None
    ran: list[nn.Module] = []
    handles = [
        part.register_forward_pre_hook(lambda part, _given: ran.append(part))
        for part in model.net.modules()
        if isinstance(part, kinds)
    ]
    try:
        with torch.no_grad():
            run(x[:_PROBED])
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else None


@contextmanager
def hooked(attach: Callable[..., torch.utils.hooks.RemovableHandle], hook: Callable[..., object]) -> Iterator[None]:
    """Keep a hook on a layer for the time of a pass, and no longer, whatever happens in it."""
    handle = attach(hook)
    try:
        yield
    finally:
        handle.remove()


def in_parts(score: Logits, x: Tensor) -> Tensor:
    """Return `score` of all rows x [N, ...], without a graph, so many rows a pass as the memory can hold."""
    with torch.no_grad():
        # A batch that fits is passed on as it is: a pass that is shared is known by its tensor.
        return score(x) if len(x) <= _PASSED_ROWS else torch.cat([score(part) for part in x.split(_PASSED_ROWS)])


def _features(model: Model, layer: nn.Module, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    if isinstance(model.logits, OnePass) and model.draw is None and not x.requires_grad and not x.is_inference():
        seen = model.logits.entering(layer, x)
    else:
        run = pathway(model, differentiable=x.requires_grad)
        with hooked(layer.register_forward_pre_hook, lambda _layer, given: seen.append(given[0])):
            run(x)
    if not seen or len(seen[-1]) != len(x):
        raise Incompatible(f"{model.name} does not pass its rows through {type(layer).__name__} one for one")
    found = seen[-1]
    return found.flatten(2).mean(2) if isinstance(layer, CONVOLUTIONS) else found.flatten(1)


def answers(model: Model, x: Tensor) -> Tensor:
    """Return the logits [N, K, ...] of raw inputs; where x asks for a gradient, those of the declared surrogate.

    A randomised model that can be run without its noise is.
    """
    if model.draw is not None and model.rebuild is not None and model.net is not None:
        return model.rebuild(model.net)(x)
    graph = x.requires_grad and torch.is_grad_enabled()
    return (model.surrogate if graph and model.surrogate is not None else model.logits)(x)
