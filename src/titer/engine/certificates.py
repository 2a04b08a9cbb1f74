"""Proofs that a prediction holds on a set of inputs: which rows no attack can win, and how far each is safe.

Intervals and linear bounds (see `engine.bounds`) of the lead of the predicted class over every other. What is not
proven may still be safe, and is attacked.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.threat import Threat
from titer.engine.bound_graph import Graph, graph
from titer.engine.bound_layers import Dense, Rectified, Reshaped
from titer.engine.bounds import intervals, lowest, tightened
from titer.engine.regions import Around, around, check_preprocessing, seen_by

SLACK = 1e-4
"""Leads up to this, and a little more where logits are large, may be rounding."""
_ROUNDING = 1e-5
_WIDEST = 512
_ROWS = 64
_NUMBERS = 2**25
_AGREEMENT = 1e-3

Bounding = Literal["interval", "linear", "linear throughout"]
"""`interval`: intervals alone. `linear`: linear bounds of the lead, on intervals of the layers before (CROWN-IBP).
`linear throughout`: linear bounds of every layer (CROWN).
"""


class Proof(Protocol):
    """Tries to prove rows."""

    def __call__(self, rows: Tensor, eps: Tensor) -> Tensor:
        """Return bool[n]: the prediction of each of the rows int64[n] holds within its own eps float[n]."""
        ...


def certified(model: Model, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Return bool[N]: the prediction is y at every input of the threat around `x` [N, ...]; False where unknown.

    Stacks of narrow linear layers get linear bounds throughout; all others those that cost a few passes, up to the
    first block of rows of which none is proven: on most networks that were not trained for it, that is the first.
    """
    safe = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    try:
        layers = readable(model, x) if len(x) else None
    except Incompatible:
        layers = None
    if layers is None or model.rebuild is None:
        return safe
    bounding: Bounding = "linear throughout" if _narrow(layers) else "linear"
    for rows in torch.arange(len(x), device=x.device).split(_at_once(layers)):
        eps = torch.full((len(rows),), threat.budget.eps, dtype=x.dtype, device=x.device)
        region = around(model.rebuild, x[rows], threat, eps)
        if not bool((region.box.low.isfinite() & region.box.high.isfinite()).all()):
            return torch.zeros_like(safe)
        safe[rows] = proven(layers, region, y[rows], bounding)
        if bounding == "linear" and not bool(safe[rows].any()):
            break
    return safe


def readable(model: Model, x: Tensor) -> Graph:
    """Return the layers of a model whose weights can be read, after a look whether they alone decide.

    Raises:
        Incompatible: no network, a step before or after it that no proof can follow, or a layer without bounds.
    """
    if model.output != "classes":
        raise Incompatible(f"certificates are of classes, and {model.name} returns {model.output}")
    if model.draw is not None or model.surrogate is not None:
        raise Incompatible(f"{model.name} is randomised or not differentiable: no bound follows a step outside its net")
    if model.net is None or model.rebuild is None or model.access != "gradient":
        raise Incompatible(f"a proof reads the network's weights, and {model.name} shows none")
    check_preprocessing(model.rebuild, x)
    with torch.no_grad():
        seen = seen_by(model.rebuild, x[:2])
        layers = graph(model.net, seen)
        ours, theirs = layers(seen), model.logits(x[:2])
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=0.0, atol=_AGREEMENT * (1 + float(theirs.abs().max()))
    ):
        raise Incompatible(f"{model.name} answers otherwise than the layers of its network, and cannot be bounded")
    return layers


def leads(layers: Graph, region: Around, y: Tensor, bounding: Bounding, most: int | None = None) -> Tensor:
    """Return float[n, K], a lower bound of the lead of class y int64[n] over every other; its own is infinite.

    A finer bounding is never below a coarser one.
    """
    slope = lead_slopes(layers, y, region)
    last = len(layers.steps) - 1
    coarse = intervals(layers, region)
    least = lowest(layers, slope, last, coarse, region, bend=False)
    if bounding != "interval":
        least = least.maximum(lowest(layers, slope, last, coarse, region))
    if bounding == "linear throughout":
        least = least.maximum(lowest(layers, slope, last, tightened(layers, region, most), region))
    return least.scatter(1, y.unsqueeze(1), torch.inf)


def lead_slopes(layers: Graph, y: Tensor, region: Around) -> Tensor:
    """Return float[n, K, K]: the lead of class y int64[n] over each class, as slopes of the logits; its own is 0."""
    classes = layers.steps[-1].shape[0]
    own = nn.functional.one_hot(y, classes).to(region.center.dtype)
    return own.unsqueeze(1) - torch.eye(classes, dtype=own.dtype, device=own.device)


def proven(layers: Graph, region: Around, y: Tensor, bounding: Bounding, most: int | None = None) -> Tensor:
    """Return bool[n]: the network predicts y int64[n] in the whole region, with more lead than rounding explains."""
    with torch.no_grad():
        slack = SLACK + _ROUNDING * layers(region.center).abs().amax(1)
        return (leads(layers, region, y, bounding, most) > slack.unsqueeze(1)).all(1)


def prover(model: Model, layers: Graph, x: Tensor, y: Tensor, threat: Threat, bounding: Bounding) -> Proof:
    """Return the proof of predictions y int64[N] of rows `x` [N, ...] by one kind of bounds."""
    assert model.rebuild is not None
    rebuild, many = model.rebuild, _at_once(layers)

    def prove(rows: Tensor, eps: Tensor) -> Tensor:
        parts = zip(rows.split(many), eps.split(many), strict=True)
        regions = ((part, around(rebuild, x[part], threat, size)) for part, size in parts)
        return torch.cat([proven(layers, region, y[part], bounding) for part, region in regions])

    return prove


def largest(prove: Proof, low: Tensor, eps: float, steps: int) -> Tensor:
    """Return float[N], the largest budgets found by bisection between `low` float[N], proven already, and `eps`.

    What is proven at `eps` itself costs one try; all others `steps` more, for a width of eps / 2^steps. Every number
    returned was proven as it stands, so that it holds where bounds are not monotone too.
    """
    high = torch.full_like(low, eps)
    rows = (low < high).nonzero().flatten()
    if len(rows):
        whole = prove(rows, high[rows])
        low = low.index_put((rows[whole],), high[rows[whole]])
    for _ in range(steps):
        rows = (low < high).nonzero().flatten()
        if not len(rows):
            break
        middle = (low[rows] + high[rows]) / 2
        holds = prove(rows, middle)
        low = low.index_put((rows,), torch.where(holds, middle, low[rows]))
        high = high.index_put((rows,), torch.where(holds, high[rows], middle))
    return low


def searched(
    model: Model, x: Tensor, threat: Threat, boundings: tuple[Bounding, ...], steps: int, norms: tuple[str, ...]
) -> tuple[Graph, Tensor, Tensor]:
    """Return layers, predictions int64[N] and proven radii float[N] by bisection, the cheapest bounding first.

    Each next bounding starts from what the one before has proven.

    Raises:
        Incompatible: a norm that no bound is for, or a model that cannot be read.
    """
    if threat.budget.norm not in norms:
        raise Incompatible(f"{threat.name}: a proof is in {', '.join(norms)}, not in {threat.budget.norm}")
    layers = readable(model, x)
    with torch.no_grad():
        y = torch.cat([model.logits(part) for part in x.split(_ROWS)]).argmax(1)
    radius = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for bounding in boundings:
        radius = largest(prover(model, layers, x, y, threat, bounding), radius, threat.budget.eps, steps)
    return layers, y, radius


def _at_once(layers: Graph) -> int:
    """Return how many rows are bounded at once: the bounds of every step are kept."""
    return max(1, min(_ROWS, _NUMBERS // sum(torch.Size(one.shape).numel() for one in layers.steps)))


def _narrow(layers: Graph) -> bool:
    """Return whether it is a stack of linear layers of few units: linear bounds of every layer are cheap there."""
    stack = all(isinstance(one.layer, Dense | Rectified | Reshaped) or not one.inputs for one in layers.steps)
    return stack and all(one.shape[-1] <= _WIDEST for one in layers.steps if isinstance(one.layer, Dense))
