"""Worst case: attacks of every family, cheap ones first, each next one on the rows that survived."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import NORMS, Needs
from titer.core.plugins import Count, Natural, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ensemble import members, strongest

_RIVALS = 3


@attack(
    "worst-case",
    paper="Croce, Hein 2020, arXiv:2003.01690, section 5: an ensemble without settings to tune, judged row by row",
    threat_ids=("NISTAML.022", "AML.T0043.000", "NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="decision", norms=NORMS),
)
def worst_case(
    *, steps: Count = 100, queries: Natural = 250, attacks: tuple[str | dict[str, Any], ...] | None = None
) -> Attack:
    """Worst case over attacks of every family.

    Under gradient access: auto-PGD on the goal's loss and on the margin to each likely rival class, the fast
    minimum-norm attack, and random search, which no masked gradient hides from. Under less access, and for l0, the
    attacks that can run there. The union over rows is the robust accuracy to report.

    Args:
        steps: gradient steps of each attack.
        queries: questions of the random search a row; 0 leaves it out while there are gradients.
        attacks: specs of your own instead, cheapest first.
    """
    ladder = members(attacks or _ladder(steps, queries), "attacks.worst-case.attacks")

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return strongest(ladder, model, x, y, threat, rng=rng)

    return run


def _ladder(steps: int, queries: int) -> tuple[dict[str, Any], ...]:
    search = ({"name": "square", "queries": queries},) if queries else ()
    return (
        {"name": "apgd", "steps": steps},
        {"name": "apgd", "steps": steps, "loss": "targeted-dlr", "restarts": _RIVALS},
        {"name": "jsma"},
        {"name": "fmn", "steps": steps},
        *search,
        {"name": "hopskipjump"},
    )
