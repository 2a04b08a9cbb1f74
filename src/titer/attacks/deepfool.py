"""DeepFool: walk to the nearest boundary of the linearised model, again and again."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.nearest import Descent, Seen, descend
from titer.engine.rows import Rows
from titer.engine.slopes import linear_step, nearest_slope


@attack(
    "deepfool",
    paper="Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599, algorithm 2, eq. 10 (Lp: eq. 11 and 12)",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    minimal=True,
)
def deepfool(*, steps: Count = 50, overshoot: Positive = 0.02, candidates: Count = 10) -> Attack:
    """DeepFool, in the threat's own norm.

    Args:
        steps: linearisations at most; a row leaves at its first success.
        overshoot: share by which each step passes the boundary.
        candidates: classes looked at, the likeliest first.
    """

    def start(rows: Rows) -> State:
        return {"x_adv": rows.x.clone(), "walked": rows.x.clone()}

    def walk(rows: Rows, state: State, seen: Seen, _count: int) -> State:
        # The total change is lengthened, as in the paper, but each time: a row that passed may leave, and one that the
        # rules hold back (each step falls short of the boundary, which it nears for ever) passes too.
        walked = rows.inside(state["walked"] + linear_step(rows, state["x_adv"], seen.value, seen.grad))
        x_adv = rows.inside(rows.x + (1 + overshoot) * (walked - rows.x))
        return {"x_adv": x_adv, "walked": walked, "done": seen.won}

    descent = Descent(steps=steps, start=start, step=walk, look=nearest_slope(candidates))

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return descend(model, x, y, threat, descent, rng=rng)

    return run
