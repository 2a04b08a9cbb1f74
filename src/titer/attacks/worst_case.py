"""Worst case: attacks of every family, cheap ones first, each next one on the rows that survived."""

from __future__ import annotations

from typing import Any

from titer.core.needs import NORMS, Needs
from titer.core.plugins import Count, Guarded, Natural, attack
from titer.core.protocols import Attack
from titer.core.threat import Access
from titer.engine.ensemble import Ensemble, members

_WITHOUT_GRADIENTS: dict[Access, tuple[dict[str, Any], ...]] = {
    "scores": ({"name": "square", "queries": 2000}, {"name": "sparse-rs", "queries": 2000}),
    "decision": ({"name": "hopskipjump"},),
}


@attack(
    "worst-case",
    paper="Croce, Hein 2020, arXiv:2003.01690, section 5: an ensemble without settings to tune, judged row by row",
    threat_ids=("NISTAML.022", "AML.T0043.000", "NISTAML.025", "AML.T0043.001"),
    nested=True,
    needs=Needs(access="decision", norms=NORMS),
)
def worst_case(
    *,
    steps: Count = 100,
    rivals: Natural = 3,
    queries: Natural = 250,
    attacks: tuple[str | dict[str, Any], ...] | None = None,
) -> Attack:
    """Worst case over attacks of every family.

    Under gradient access: the fast minimum-norm attack, whose finds serve every budget of a family, then auto-PGD on
    the goal's loss and on the margin to each likely rival class, and random search, which no masked gradient hides
    from. Under less access, and for l0, the attacks that can run there; `substitution` is one where values have ends.
    The union over rows is the robust accuracy to report.

    Args:
        steps: gradient steps of each attack.
        rivals: likely other classes that are aimed at one by one; with two classes a single one is a second start, and
            0 saves it.
        queries: questions of the random search a row; 0 leaves it out. Without gradients it asks 2,000.
        attacks: specs of your own instead, cheapest first.
    """
    if attacks:
        return Ensemble(first=None, rest=members(attacks, "attacks.worst-case.attacks"))
    first, *rest = members(_ladder(steps, rivals, queries), "attacks.worst-case.attacks")
    less: dict[Access, tuple[Guarded, ...]] = {
        access: members(specs, "attacks.worst-case") for access, specs in _WITHOUT_GRADIENTS.items()
    }
    return Ensemble(first=first, rest=tuple(rest), less=less)


def _ladder(steps: int, rivals: int, queries: int) -> tuple[dict[str, Any], ...]:
    aimed = ({"name": "apgd", "steps": steps, "loss": "targeted-dlr", "restarts": rivals},) if rivals else ()
    search = tuple({"name": name, "queries": queries} for name in ("square", "sparse-rs")) if queries else ()
    return (
        {"name": "fmn", "steps": steps},
        {"name": "apgd", "steps": steps},
        *aimed,
        {"name": "jsma"},
        *search,
        {"name": "substitution", "tries": 8, "beam": 2},
    )
