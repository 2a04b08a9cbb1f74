"""A network as the list of layers that bounds pass through, traced by torch.fx."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.engine.bound_layers import (
    AVERAGES,
    CONVOLUTIONS,
    MAX_POOLS,
    NORMS,
    Affine,
    Averaged,
    Convolved,
    Dense,
    Input,
    Layer,
    Maximum,
    Normalized,
    Rectified,
    Reshaped,
    Scaled,
    Shape,
    Sum,
)

SUPPORTED = (
    "linear layers, convolutions with zeros around them, ReLU, batch norm with running statistics, average, adaptive "
    "average and max pooling, flatten, dropout, addition, and factors that are numbers"
)
_ROWS = 2
_ADDED = (operator.add, operator.iadd, torch.add)
_MULTIPLIED = (operator.mul, operator.imul, torch.mul)
_DIVIDED = (operator.truediv, operator.itruediv, torch.div)
_SUBTRACTED = (operator.sub, operator.isub, torch.sub)
_PASSED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity, nn.Flatten, nn.Unflatten)
_RESHAPED = ("flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze", "clone")
_RESHAPING = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, functional.dropout)
_RECTIFYING = (torch.relu, torch.relu_, functional.relu, functional.relu_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One layer: its name in the network, the steps it reads, and the shape of one row of what it puts out."""

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The steps of a network in order: the first is its input, the last its logits."""

    steps: tuple[Step, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the network returns for `x` [N, *shape], in evaluation."""
        values: list[Tensor] = []
        for step in self.steps:
            values.append(_value(step, [values[i] for i in step.inputs] or [x]))
        return values[-1]

    @property
    def rectified(self) -> int:
        """How many ReLU units there are."""
        return sum(_count(one.shape) for one in self.steps if isinstance(one.layer, Rectified))

    @property
    def widest(self) -> int:
        """How many values the widest step has."""
        return max(_count(one.shape) for one in self.steps)


def graph(net: nn.Module, x: Tensor) -> Graph:
    """Return the layers of `net` for rows such as `x` [N, *shape]; they read the live weights of `net`.

    Raises:
        Incompatible: it cannot be traced, or holds a layer that cannot be bounded: named, with what can.
    """
    plain = _copied(net)
    nodes = plain.graph.nodes
    shapes = _Shapes(plain)
    with torch.no_grad():
        shapes.run(x[:1].detach().repeat(_ROWS, *[1] * (x.dim() - 1)))
    steps: list[Step] = []
    index: dict[fx.Node, int] = {}
    for node in nodes:
        if node.op == "output":
            break
        shape = shapes.found.get(node)
        if shape is None:  # a size that a view asks for: the shape it leads to is known
            continue
        layer = Input() if node.op == "placeholder" else _layer(net, node, shape)
        inputs = _inputs(node, index)
        added = [steps[i].shape for i in inputs] if isinstance(layer, Sum) else [shape, shape]
        if layer is None or added != [shape, shape]:
            raise Incompatible(f"{_named(net, node)} cannot be bounded: supported are {SUPPORTED}")
        index[node] = len(steps)
        steps.append(Step(name=str(node.target), layer=layer, inputs=inputs, shape=shape))
    return Graph(steps=tuple(_used(steps, index, nodes)))


def _inputs(node: fx.Node, index: dict[fx.Node, int]) -> tuple[int, ...]:
    """Return the steps that a node reads, twice where it reads one twice."""
    plain = tuple(index[one] for one in node.args if isinstance(one, fx.Node) and one in index)
    return plain or tuple(index[one] for one in node.all_input_nodes if one in index)


def _used(steps: list[Step], index: dict[fx.Node, int], nodes: Any) -> list[Step]:
    """Return the steps up to the one whose value is the network's."""
    (returned,) = next(node for node in nodes if node.op == "output").args
    if returned not in index:
        raise Incompatible("the network does not return one tensor of logits, and cannot be bounded")
    if sum(isinstance(one.layer, Input) for one in steps) != 1:
        raise Incompatible("the network takes more than one input, and cannot be bounded")
    return steps[: index[returned] + 1]


def _copied(net: nn.Module) -> fx.GraphModule:
    """Return a copy in evaluation, traced: a look at shapes must not touch the statistics of one in training."""
    try:
        return fx.symbolic_trace(copy.deepcopy(net).eval())
    except Exception as error:  # noqa: BLE001 - tracing runs the user's own code, which may do anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise Incompatible(
            f"{type(net).__name__} cannot be traced ({reason}): bounds need a network whose layers do not depend on "
            "its input"
        ) from None


class _Shapes(fx.Interpreter):
    """Notes the shape of one row of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op not in ("get_attr", "output"):
            if value.shape[:1] != (_ROWS,):
                raise Incompatible(f"the step {n.name!r} mixes the rows of a batch, and cannot be bounded")
            self.found[n] = tuple(value.shape[1:])
        return value


def _layer(net: nn.Module, node: fx.Node, shape: Shape) -> Layer | None:
    if node.op == "call_module":
        return _module(net.get_submodule(str(node.target)), shape)
    if node.op == "call_function":
        return _function(node, shape)
    if node.op == "call_method":
        if node.target in ("relu", "relu_"):
            return Rectified()
        if node.target in ("add", "add_"):
            return _arithmetic(node, operator.add)
        return Reshaped(shape) if node.target in _RESHAPED else None
    return None


def _module(part: nn.Module, shape: Shape) -> Layer | None:
    if isinstance(part, nn.Linear):
        return Dense(part)
    if isinstance(part, CONVOLUTIONS):
        return Convolved(part) if part.padding_mode == "zeros" else None
    if isinstance(part, NORMS):
        return Normalized(part) if part.running_mean is not None else None
    if isinstance(part, MAX_POOLS):
        return None if part.return_indices else Maximum(part)
    if isinstance(part, nn.ReLU):
        return Rectified()
    if isinstance(part, AVERAGES):
        return Averaged(part)
    return Reshaped(shape) if isinstance(part, _PASSED) else None


def _function(node: fx.Node, shape: Shape) -> Layer | None:
    called: Any = node.target
    if called in _RECTIFYING:
        return Rectified()
    if called in _RESHAPING:
        return Reshaped(shape)
    return _arithmetic(node, called)


def _arithmetic(node: fx.Node, called: Callable[..., Any]) -> Layer | None:
    """Return a sum of tensors, or a tensor with a number added, taken off, multiplied or divided by."""
    if node.kwargs or len(node.args) != 2:
        return None
    tensors = [one for one in node.args if isinstance(one, fx.Node)]
    if len(tensors) == 2:
        return Sum() if called in _ADDED else None
    number = next((float(one) for one in node.args if isinstance(one, int | float)), None)
    if number is None:
        return None
    first = isinstance(node.args[0], fx.Node)
    if called in _ADDED:
        return Scaled(1.0, number)
    if called in _MULTIPLIED:
        return Scaled(number)
    if called in _SUBTRACTED:
        return Scaled(1.0, -number) if first else Scaled(-1.0, number)
    return Scaled(1.0 / number) if called in _DIVIDED and first and number else None


def _value(step: Step, given: list[Tensor]) -> Tensor:
    layer = step.layer
    if isinstance(layer, Input):
        return given[0]
    if isinstance(layer, Rectified):
        return given[0].relu()
    if isinstance(layer, Maximum):
        return layer.forward(given[0])
    if isinstance(layer, Sum):
        return given[0] + given[1]
    return applied(layer, given[0], step.shape)


def applied(layer: Affine, x: Tensor, shape: Shape) -> Tensor:
    """Return W x + b of an affine layer for rows `x`; `shape` is its output's."""
    offset, out = layer.offset(shape), layer.linear(x)
    return out if offset is None else out + offset.to(out)


def _named(net: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target!r} ({type(net.get_submodule(str(node.target))).__name__})"
    return f"the step {node.name!r} ({node.op.removeprefix('call_')} {getattr(node.target, '__name__', node.target)})"


def _count(shape: Shape) -> int:
    return int(torch.Size(shape).numel())
