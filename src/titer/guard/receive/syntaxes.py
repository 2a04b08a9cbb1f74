"""What the guard receives: every storage SOP class of the standard, in every transfer syntax that can be walked."""

from __future__ import annotations

from pydicom._uid_dict import UID_dictionary

from titer.guard.checks.walk import TRANSFER_SYNTAXES
from titer.guard.receive.pdu import ACCEPTANCE, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX, Answer, Proposal

VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_IMPLICIT = "1.2.840.10008.1.2"
_PLAIN = frozenset((_IMPLICIT, "1.2.840.10008.1.2.1"))
_NO_OBJECTS = ("Media Storage Directory Storage", "Hanging Protocol Storage", "Color Palette Storage")
STORAGE = frozenset(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and " Storage" in name and "Commitment" not in name and not name.startswith(_NO_OBJECTS)
)
"""Objects that belong to a patient's series; a hanging protocol or a palette belongs to none."""


def is_storage(sop_class_uid: str) -> bool:
    """Whether objects of a SOP class are received."""
    return sop_class_uid in STORAGE


def answer(proposal: Proposal) -> Answer:
    """Return what becomes of a proposed presentation context: the first transfer syntax that is received has it."""
    if proposal.abstract_syntax in STORAGE:
        allowed = TRANSFER_SYNTAXES
    elif proposal.abstract_syntax in (VERIFICATION, COMMITMENT):
        allowed = _PLAIN
    else:
        return Answer(number=proposal.number, result=NO_ABSTRACT_SYNTAX, transfer_syntax=_IMPLICIT)
    for syntax in proposal.transfer_syntaxes:
        if syntax in allowed:
            return Answer(number=proposal.number, result=ACCEPTANCE, transfer_syntax=syntax)
    return Answer(number=proposal.number, result=NO_TRANSFER_SYNTAX, transfer_syntax=_IMPLICIT)
