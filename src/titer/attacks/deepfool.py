"""DeepFool: walk to the nearest boundary of the linearised model, again and again."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.rows import EOT_DRAWS, MICRO_BATCH
from titer.threats.balls import per_row, size
from titer.threats.planes import step_to_plane
from titer.threats.rules import followable


@attack(
    "deepfool",
    paper="Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv:1511.04599, algorithm 2, eq. 10 (Lp: eq. 11 and 12)",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    minimal=True,
    needs=Needs(outputs=("classes",), any_error_only=True),
)
def deepfool(*, steps: Count = 50, overshoot: Positive = 0.02, candidates: Count = 10) -> Attack:
    """DeepFool, in the threat's own norm.

    Args:
        steps: linearisations at most; a row leaves at its first error.
        overshoot: share by which each step passes the boundary.
        candidates: classes looked at, the likeliest first.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        parts = [
            _walk(model, x, y, rows, threat, (steps, overshoot, candidates), rng=rng)
            for rows in torch.arange(len(x), device=x.device).split(MICRO_BATCH)
        ]
        return torch.cat(parts)

    return run


def _walk(
    model: Model,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    threat: Threat,
    settings: tuple[int, float, int],
    *,
    rng: Generator,
) -> Tensor:
    """Walk one micro-batch until each row is misclassified or the steps are used up."""
    steps, overshoot, candidates = settings
    found, live = x[rows].clone(), torch.arange(len(rows), device=x.device)
    walked = found.clone()
    model.attend(rows)
    rivals = _rivals(model, found, y[rows], candidates, rng)
    for _ in range(steps):
        model.attend(rows[live])
        x_adv = found[live]
        margins, normals = _margins(model, x_adv, y[rows[live]], rivals[live], rng)
        open_rows = (margins > 0).all(1)
        live, x_adv = live[open_rows], x_adv[open_rows]
        if not len(live):
            break
        step = _nearest(margins[open_rows], [normal[open_rows] for normal in normals], threat, x_adv)
        clean = x[rows[live]]
        # The total change is lengthened, as in the paper, but each time: a row that passed may leave, and one that the
        # rules hold back (each step falls short of the boundary, which it nears for ever) passes too.
        walked[live] = _inside(clean, walked[live] + step, threat)
        found[live] = _inside(clean, clean + (1 + overshoot) * (walked[live] - clean), threat)
    return found


def _rivals(model: Model, x: Tensor, label: Tensor, candidates: int, rng: Generator) -> Tensor:
    """Return the likeliest other classes of the clean rows, int64[n, rivals]."""
    with torch.no_grad():
        logits = (model.logits if model.draw is None else model.draw(rng))(x)
    others = logits.scatter(1, label.unsqueeze(1), float("-inf"))
    return others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices


def _margins(model: Model, x_adv: Tensor, label: Tensor, rivals: Tensor, rng: Generator) -> tuple[Tensor, list[Tensor]]:
    """Return how far the true class leads each rival, [n, rivals], and the gradients of each lead."""
    leads, normals = [], []
    for rival in rivals.unbind(1):

        def lead(logits: Tensor, rival: Tensor = rival) -> Tensor:
            return (logits.gather(1, label.unsqueeze(1)) - logits.gather(1, rival.unsqueeze(1))).squeeze(1)

        logits, grad = model.evaluate(lead, x_adv, draws=EOT_DRAWS, rng=rng)
        leads.append(lead(logits))
        normals.append(grad)
    return torch.stack(leads, 1), normals


def _nearest(margins: Tensor, normals: list[Tensor], threat: Threat, x_adv: Tensor) -> Tensor:
    """Return the step to the nearest of the linearised boundaries (eq. 8 and 9)."""
    ball = threat.budget
    best = torch.zeros_like(x_adv)
    shortest = torch.full_like(margins[:, 0], float("inf"))
    for margin, slope in zip(margins.unbind(1), normals, strict=True):
        normal = -followable(threat.domain, x_adv, -slope)
        step = -step_to_plane(ball.norm, normal, margin.abs() + 1e-6, ball.scaled(x_adv))
        length = size(ball.norm, x_adv + step, x_adv, ball.scaled(x_adv)).nan_to_num(float("inf"))
        # A lead without slope has no boundary: it is infinitely far, though the step towards it is none.
        length = length.masked_fill((normal == 0).flatten(1).all(1), float("inf"))
        best = torch.where(per_row(length < shortest, x_adv), step, best)
        shortest = torch.minimum(length, shortest)
    return best


def _inside(clean: Tensor, x_adv: Tensor, threat: Threat) -> Tensor:
    """Return the rows inside the domain; the budget is left open, as a least-perturbation attack ignores eps."""
    for rule in threat.domain:
        x_adv = rule.project(x_adv, clean)
    return x_adv
