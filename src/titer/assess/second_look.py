"""Predicts successes again, in another batch and at another draw: what does not hold is told."""

from __future__ import annotations

from typing import Any

from torch import Generator

from titer.assess.agreement import confirmed
from titer.assess.cells import Cell
from titer.assess.judge import Proposal, Verdict, predict, reached
from titer.core.record import Samples
from titer.core.threat import Threat

_ROWS = 250


class SecondLook:
    """Counts the successes of one cell on its source, and those that a second prediction does not confirm."""

    def __init__(self, cell: Cell, test: Samples) -> None:
        self._cell = cell
        self._test = test
        self._wins = 0
        self._lost = 0

    def take(self, threat: Threat, proposal: Proposal, result: Verdict, *, rng: Generator) -> None:
        """Look again at the first successes under one threat, last row first."""
        model = self._cell.source.model
        rows = (result.won & proposal.attacked).nonzero().flatten()[:_ROWS].flip(0)
        if model is None or not len(rows):
            return
        again = reached(threat, predict(model, proposal.x_adv[rows], rng=rng), self._test.y[rows])
        self._wins += len(rows)
        self._lost += int((~again).sum())

    def check(self) -> dict[str, Any]:
        """Return the check of sanity.json."""
        assert self._cell.attack is not None
        source = self._cell.source
        labels = {
            "model": source.model_label,
            "defense": source.label,
            "threat_family": self._cell.threats[-1].family,
        }
        randomised = source.model is not None and source.model.draw is not None
        return labels | confirmed(self._cell.attack.label, self._wins, self._lost, randomised=randomised)
