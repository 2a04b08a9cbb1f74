"""The engine of attacks on a fixed budget: climb a loss step by step, and let won rows leave at once.

The logits of each step's forward pass say who has won, so early leaving costs nothing, and the work shrinks as the
attack succeeds. Restarts run on survivors only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.threat import Threat
from titer.engine.rows import Rows, blocks

State = dict[str, Tensor]
"""What a search remembers of each row: tensors of n rows; `x_adv` is the input to look at next."""


def _goal_loss(rows: Rows, state: State) -> Evaluation:
    return rows.evaluate(state["x_adv"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """One attack's mathematics: where a restart begins, and how it steps from what it saw.

    `look` measures logits and gradient at the state's `x_adv`; score-based attacks estimate theirs there. A state's
    `best`, where there is one, is returned for rows that did not win.
    """

    steps: int
    start: Callable[[Rows, int], State]
    step: Callable[[Rows, State, Evaluation, int], State]
    look: Callable[[Rows, State], Evaluation] = _goal_loss


def ascend(
    model: Model, x: Tensor, y: Tensor, threat: Threat, ascent: Ascent, *, rng: Generator, restarts: int = 1
) -> Tensor:
    """Return for each row of `x` [N, ...] the first iterate that won, or else the last (or best) one.

    Raises:
        Incompatible: the model gives what the attack needs to nobody.
    """
    found = x.clone()
    for block in blocks(model, x, y, threat, rng):
        rows = block
        for restart in range(restarts):
            if not len(rows):
                break
            adversarial, won = _climb(rows, ascent, restart, verdict=restart < restarts - 1)
            found[rows.at] = rows.settled(adversarial)
            rows = rows.take(~won)
    return found


def _climb(rows: Rows, ascent: Ascent, restart: int, *, verdict: bool) -> tuple[Tensor, Tensor]:
    """Climb once from one start; return the found rows and bool[n], which of them won.

    Without `verdict` the last iterate is not looked at: the judge will.
    """
    everyone, state = rows, ascent.start(rows, restart)
    found = state["x_adv"].clone()
    won = torch.zeros(len(rows), dtype=torch.bool, device=found.device)
    live = torch.arange(len(rows), device=found.device)
    for step in range(ascent.steps):
        seen = ascent.look(rows, state)
        hit = rows.won(state["x_adv"], seen.logits)
        if bool(hit.any()):
            found[live[hit]], won[live[hit]] = state["x_adv"][hit], True
            keep = ~hit
            if not bool(keep.any()):
                return found, won
            live, rows, state = live[keep], rows.take(keep), taken(state, keep)
            seen = Evaluation(seen.logits[keep], seen.grad[keep])
        state = ascent.step(rows, state, seen, step)
    found[live] = state.get("best", state["x_adv"])
    if verdict:
        won[live] = everyone.take(live).look(found[live])
    return found, won


def taken(state: State, keep: Tensor) -> State:
    """Return the state of the rows that `keep` names."""
    return {name: value[keep] for name, value in state.items()}
