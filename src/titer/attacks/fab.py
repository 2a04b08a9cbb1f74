"""Fast adaptive boundary: step onto the linearised boundary, drawn to the clean row, and back from each success."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, Share, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.nearest import Descent, Seen, descend
from titer.engine.rows import Rows
from titer.engine.slopes import linear_step, nearest_slope

_FINAL_SEARCH = 5


@attack(
    "fab",
    paper="Croce, Hein 2020, arXiv:1907.02044, algorithm 1, eq. 3, 7 to 10",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    minimal=True,
)
def fab(
    *,
    steps: Count = 100,
    restarts: Count = 1,
    pull: Share = 0.1,
    overshoot: Positive = 0.05,
    backward: Share = 0.9,
    candidates: Count = 10,
) -> Attack:
    """Fast adaptive boundary, in the threat's own norm.

    Args:
        steps: looks at the model of each start; a success is looked at, and the point it goes back to.
        restarts: starts, the first at the clean row, each next one at a draw of half the nearest find's ball.
        pull: largest weight of the clean row's own step to the boundary (alpha_max).
        overshoot: share by which each step passes the boundary (eta - 1).
        backward: share of a success's change that is kept when going back (beta).
        candidates: classes looked at, the likeliest first.
    """

    def start(rows: Rows) -> State:
        return {"x_adv": rows.x.clone(), "back": torch.zeros_like(rows.at, dtype=torch.bool)}

    def move(rows: Rows, state: State, seen: Seen, count: int) -> State:
        if (count + 1) % steps == 0:
            return {"x_adv": _drawn(rows, state["nearest"]), "back": torch.zeros_like(state["back"])}
        back = seen.won & ~state["back"]
        nearer = rows.x + backward * (state["x_adv"] - rows.x)
        ahead = _towards(rows, state["x_adv"], seen, pull, 1 + overshoot)
        return {"x_adv": rows.inside(torch.where(rows.per_row(back), nearer, ahead)), "back": back}

    descent = Descent(
        steps=steps * restarts,
        start=start,
        step=move,
        look=nearest_slope(candidates),
        bisections=_FINAL_SEARCH,
    )

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return descend(model, x, y, threat, descent, rng=rng)

    return run


def _towards(rows: Rows, x_adv: Tensor, seen: Seen, pull: float, eta: float) -> Tensor:
    """Return the mean of the steps onto the plane from x_adv and from the clean row (eq. 7 and 9)."""
    at_clean = seen.value + (seen.grad * (rows.x - x_adv)).flatten(1).sum(1)
    own = linear_step(rows, x_adv, seen.value, seen.grad)
    clean = linear_step(rows, rows.x, at_clean, seen.grad)
    far, near = rows.distance(rows.x + clean), rows.distance(rows.x + own)
    weight = rows.per_row((near / (near + far).clamp_min(1e-30)).clamp_max(pull))
    return (1 - weight) * (x_adv + eta * own) + weight * (rows.x + eta * clean)


def _drawn(rows: Rows, nearest: Tensor) -> Tensor:
    """Return a draw of the ball of half the nearest find's size, or of half the budget (algorithm 1, line 3)."""
    ball = rows.threat.budget
    share = rows.per_row((nearest / ball.eps).where(nearest.isfinite(), 1.0) / 2)
    return rows.inside(rows.x + share * (ball.sample(rows.x, rows.noise) - rows.x))
