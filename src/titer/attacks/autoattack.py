"""AutoAttack: the field's standard ensemble, also for models of two and three classes."""

from __future__ import annotations

from typing import Any, Literal

from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.engine.ensemble import Ensemble, members


@attack(
    "autoattack",
    paper="Croce, Hein 2020, arXiv:2003.01690, section 5 (L1: Croce, Hein 2021, arXiv:2103.01208)",
    threat_ids=("NISTAML.022", "AML.T0043.000", "NISTAML.025", "AML.T0043.001"),
    nested=True,
)
def autoattack(
    *, version: Literal["standard", "rand"] = "standard", steps: Count = 100, queries: Count = 5000, rivals: Count = 9
) -> Attack:
    """AutoAttack.

    Below four classes the targeted losses are the margin; a rival is aimed at once, however few there are.

    Args:
        version: `standard`, or `rand` for randomised defences: auto-PGD with both losses, averaged over draws.
        steps: gradient steps of each attack.
        queries: questions of the square attack a row.
        rivals: rival classes that the targeted attacks aim at.
    """
    return Ensemble(first=None, rest=members(_parts(version, steps, queries, rivals), "attacks.autoattack"))


def _parts(version: str, steps: int, queries: int, rivals: int) -> tuple[dict[str, Any], ...]:
    if version == "rand":
        return {"name": "apgd", "steps": steps}, {"name": "apgd", "steps": steps, "loss": "dlr"}
    return (
        {"name": "apgd", "steps": steps},
        {"name": "apgd", "steps": steps, "loss": "targeted-dlr", "restarts": rivals},
        {"name": "fab", "steps": steps},
        {"name": "square", "queries": queries},
    )
