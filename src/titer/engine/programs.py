"""A ReLU network on a set of inputs as a mixed-integer linear program (Tjeng, Xiao, Tedrake 2019, arXiv:1711.07356).

Each unit that may be on or off gets a variable for what it puts out and a binary one for which of the two it is
(section 4 of the paper, with bounds of the unit as its constants); all others are linear already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from titer.engine.bound_graph import Graph, Step
from titer.engine.bound_layers import Affine, Input, Rectified, Sum
from titer.engine.regions import Around, Interval

_TIE = 1e-4
_SAFETY = 1e-4
_INFEASIBLE = 2
_GAP = 1e-4


@dataclass(frozen=True, slots=True)
class _Values:
    """What a step puts out, as a linear function of the variables: `slopes` [variables, *shape], `base` [*shape]."""

    slopes: Tensor
    base: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Inputs x, outputs z of the unstable units and their switches a, in this order, and the network between them.

    `rows` @ (x, z, a) <= `limits`; `low` and `high` bound the variables. `logits` [K, x and z] and `base` [K] give the
    network's answer. `norm`, `center` and `size` (one unit of radius along each input) say how distance is measured.
    """

    rows: Any
    limits: np.ndarray
    low: np.ndarray
    high: np.ndarray
    switches: int
    logits: np.ndarray
    base: np.ndarray
    norm: str
    center: np.ndarray
    size: np.ndarray
    eps: float

    @classmethod
    def of(cls, layers: Graph, region: Around, bounds: Sequence[Interval], eps: float) -> Program:
        """Return the program of one row; `bounds` are the intervals of every step inside the region."""
        inputs = region.center[0].numel()
        bent = [_unstable(bounds[one.inputs[0]]) for one in layers.steps if isinstance(one.layer, Rectified)]
        count = sum(len(places) for places in bent)
        values: list[_Values] = []
        rows, limits, tops = [], [], []
        at = inputs
        for step in layers.steps:
            if isinstance(step.layer, Rectified):
                before = bounds[step.inputs[0]]
                one, more, limit, top = _switched(values[step.inputs[0]], before, at, inputs + count, inputs)
                at += len(top)
                rows.append(more)
                limits.append(limit)
                tops.append(top)
            else:
                one = _passed(step, values, region, inputs + count)
            values.append(one)
        box = [part[0].flatten().double().numpy() for part in (region.box.low, region.box.high)]
        last = values[-1]
        none = np.zeros(0)
        return cls(
            rows=vstack(rows) if rows else csr_array((0, inputs + 2 * count)),
            limits=np.concatenate([none, *limits]),
            low=np.concatenate([box[0], np.zeros(2 * count)]),
            high=np.concatenate([box[1], *tops, np.ones(count)]),
            switches=count,
            logits=last.slopes.T.numpy(),
            base=last.base.numpy(),
            norm=region.norm,
            center=region.center[0].flatten().double().numpy(),
            size=region.size[0].flatten().double().numpy() / eps,
            eps=eps,
        )


def nearest(program: Program, own: int, rival: int, floor: float, time_limit: float) -> float:
    """Return a lower bound of the distance to the nearest input where `rival` is not behind `own`; eps if none is.

    The bound is the distance itself, less a ten-thousandth, where the solver finishes. Distances below `floor` are
    known to be safe.
    """
    moved, limits, extra = _distance(program)
    ahead = program.logits[own] - program.logits[rival]
    tie = _TIE + program.base[rival] - program.base[own]
    variables = len(program.low)
    rows = vstack(
        [
            hstack([program.rows, csr_array((program.rows.shape[0], extra))]),
            moved,
            csr_array(np.concatenate([ahead, np.zeros(variables - len(ahead) + extra)])[None]),
        ]
    )
    low = np.concatenate([program.low, np.zeros(extra - 1), [floor]])
    high = np.concatenate([program.high, np.full(extra - 1, np.inf), [program.eps]])
    cost = np.zeros(variables + extra)
    cost[-1] = 1.0
    binary = np.zeros(variables + extra)
    binary[variables - program.switches : variables] = 1
    solved = milp(
        cost,
        integrality=binary,
        bounds=Bounds(low, high),
        constraints=LinearConstraint(csr_array(rows), -np.inf, np.concatenate([program.limits, limits, [tie]])),
        options={"time_limit": time_limit, "mip_rel_gap": _GAP},
    )
    return _lower_bound(solved, floor, program)


def _lower_bound(solved: Any, floor: float, program: Program) -> float:
    if solved.status == _INFEASIBLE:
        return program.eps
    bound = solved.mip_dual_bound if program.switches else solved.fun
    if bound is None or not np.isfinite(bound):
        return floor
    return max(floor, min(program.eps, float(bound) * (1.0 - _SAFETY)))


def _distance(program: Program) -> tuple[Any, np.ndarray, int]:
    """Return rows, limits and how many variables measure the distance; the last of them is the distance."""
    inputs, variables = len(program.center), len(program.low)
    plus = csr_array((np.ones(inputs), (np.arange(inputs), np.arange(inputs))), shape=(inputs, variables))
    size = csr_array(program.size[:, None])
    limits = np.concatenate([program.center, -program.center])
    if program.norm == "linf":
        return vstack([hstack([plus, -size]), hstack([-plus, -size])]), limits, 1
    each = csr_array((-program.size, (np.arange(inputs), np.arange(inputs))), shape=(inputs, inputs))
    nothing = csr_array((inputs, 1))
    total = hstack([csr_array((1, variables)), csr_array(np.ones((1, inputs))), csr_array([[-1.0]])])
    rows = vstack([hstack([plus, each, nothing]), hstack([-plus, each, nothing]), total])
    return rows, np.concatenate([limits, [0.0]]), inputs + 1


def _unstable(before: Interval) -> Tensor:
    return ((before.low[0] < 0) & (before.high[0] > 0)).flatten().nonzero().flatten()


def _switched(
    given: _Values, before: Interval, at: int, columns: int, inputs: int
) -> tuple[_Values, Any, np.ndarray, np.ndarray]:
    """Return what ReLUs put out, and rows, limits and highest values of the variables from column `at` on.

    For e the unit's input in [l, h], z its output and a its switch: z >= e, z <= h a, z <= e - l (1 - a).
    """
    places = _unstable(before)
    low, high = (part[0].flatten()[places].double().numpy() for part in (before.low, before.high))
    flat, base = given.slopes.flatten(1), given.base.flatten()
    own = np.arange(len(places))
    entering = csr_array(flat[:, places].T.numpy())
    out = csr_array((np.ones(len(places)), (own, at + own)), shape=entering.shape)
    switches = (len(places), columns - inputs)
    first = at - inputs

    def switched(values: np.ndarray) -> Any:
        return csr_array((values, (own, first + own)), shape=switches)

    rows = vstack(
        [
            hstack([entering - out, csr_array(switches)]),
            hstack([out, switched(-high)]),
            hstack([out - entering, switched(-low)]),
        ]
    )
    constant = base[places].numpy()
    limits = np.concatenate([-constant, np.zeros(len(places)), constant - low])
    on = (before.low[0].flatten() >= 0).to(flat)
    slopes, moved = flat * on, base * on
    slopes[at + torch.arange(len(places)), places] = 1.0
    return _Values(slopes.view_as(given.slopes), moved.view_as(given.base)), rows, limits, high


def _passed(step: Step, values: list[_Values], region: Around, columns: int) -> _Values:
    """Return what an input, a sum or an affine layer puts out."""
    if isinstance(step.layer, Input):
        inputs = region.center[0].numel()
        slopes = torch.zeros(columns, inputs, dtype=torch.float64)
        slopes[:inputs] = torch.eye(inputs, dtype=torch.float64)
        return _Values(slopes.view(columns, *step.shape), torch.zeros(step.shape, dtype=torch.float64))
    given = [values[i] for i in step.inputs]
    if isinstance(step.layer, Sum):
        return _Values(given[0].slopes + given[1].slopes, given[0].base + given[1].base)
    assert isinstance(step.layer, Affine)
    both = torch.cat([given[0].slopes, given[0].base.unsqueeze(0)]).float()
    passed = step.layer.linear(both).detach().double()
    offset = step.layer.offset(step.shape)
    base = passed[-1] if offset is None else passed[-1] + offset.detach().double()
    return _Values(passed[:-1], base)
