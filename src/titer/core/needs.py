"""What an attack needs of model and threat, said beforehand: where they cannot meet, no time is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from titer.core.outputs import OUTPUTS, Output
from titer.core.threat import RANK, Access

if TYPE_CHECKING:
    from titer.core.model import Model
    from titer.core.threat import Threat

Norm = Literal["linf", "l2", "l1", "l0"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
BALLS: tuple[Norm, ...] = ("linf", "l2", "l1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The least access, the norms, outputs and goals an attack knows; whether it needs a mask, notes, or ends."""

    access: Access = "gradient"
    norms: tuple[Norm, ...] = BALLS
    outputs: tuple[Output, ...] = OUTPUTS
    any_error_only: bool = False
    mask: bool = False
    words: bool = False
    ends: bool = False

    def describe(self) -> str:
        """Return what is needed as one line for the console."""
        kinds = [] if self.outputs == OUTPUTS else [f"output {' or '.join(self.outputs)}"]
        goals = ["the goal any-error"] if self.any_error_only else []
        masks = ["a threat with a mask"] if self.mask else []
        notes = ["notes of words"] if self.words else []
        ends = ["ends of every value"] if self.ends else []
        needed = [f"access {self.access}", f"norm {' or '.join(self.norms)}", *kinds, *goals, *masks, *notes, *ends]
        return "; ".join(needed)

    def refusal(self, name: str, threat: Threat, output: Output, access: Access) -> str | None:
        """Return why the attack `name` cannot run, or None; `access` is what the model gives at the most."""
        seen = min(access, threat.access, key=RANK.__getitem__)
        if RANK[seen] < RANK[self.access]:
            return f"{name} needs access = {self.access!r}, and there is access = {seen!r}"
        if threat.budget.norm not in self.norms:
            return f"{name} knows no {threat.budget.norm}: allowed are {', '.join(self.norms)}"
        if output not in self.outputs:
            return f"{name} attacks no model whose output is {output!r}: allowed are {', '.join(self.outputs)}"
        if self.any_error_only and threat.goal.name != "any-error":
            return f"{name} knows no goal but any-error, not {threat.goal.name}"
        if self.mask and not threat.masked:
            return f"{name} needs a threat with a mask: it says where the patch may lie"
        if self.words and not threat.worded:
            return f"{name} needs notes: rows of words with substitutes"
        if self.ends and not threat.ended:
            return f"{name} needs a domain that gives every value a least and a largest one"
        return None

    def refused(self, name: str, threat: Threat, model: Model) -> str | None:
        """Return why the attack `name` cannot run on this model under this threat, or None."""
        return self.refusal(name, threat, model.output, model.access)
