"""Status codes that the guard gives to a sender (PS3.4, section B.2.3; PS3.7, annex C)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """Of a C-STORE, N-ACTION or C-ECHO response; the same numbers are STOW-RS's failure reasons."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION_TYPE = 0x0123
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    PENDING = 0xFF00
    OUT_OF_RESOURCES = 0xA700
    IDENTITY_CONFLICT = 0xA779  # no standard code; dcm4chee-arc refuses conflicting identities with it
    MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, and a comment of up to 64 characters without patient data."""

    status: Status
    comment: str = ""

    @property
    def stored(self) -> bool:
        """Whether the object is durable here."""
        return self.status == Status.SUCCESS


STORED = Reply(Status.SUCCESS)
