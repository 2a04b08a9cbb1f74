"""What a way of sending has to be, and the two ways in which it fails."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from titer.core.errors import TiterError

_BLOCK = 1 << 20


class Unreachable(TiterError):  # noqa: N818 - says what happened
    """The peer is down, hangs, breaks off or says that it cannot now: try again later (the breaker counts these).

    `wait` is how many seconds the peer asks for, where it says so.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        """Keep the reason, which holds no patient data."""
        super().__init__(reason)
        self.wait = wait


class Refused(TiterError):  # noqa: N818 - says what happened
    """The peer answers, and will not take this item: trying for a day would not help."""


class Changed(TiterError):  # noqa: N818 - says what happened
    """What stands on the disk is not what was received: it is not sent, and the guard raises an alert (G3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is sent: a DICOM file or a JSON body, under a key that is the same each time it is sent."""

    kind: str
    subject: str
    key: str
    path: Path | None = None
    body: Mapping[str, Any] | None = None


class Sender(Protocol):
    """A way to one destination, used by one thread; it may keep a connection open."""

    def send(self, parcel: Parcel) -> str:
        """Send, and return what the peer remarked ("" where nothing).

        Raises:
            Unreachable: it can be tried again later.
            Refused: the peer will not take it.
        """

    def rest(self) -> None:
        """There was nothing to send for a while: an open connection may be let go politely."""

    def close(self) -> None:
        """Let the connection go; from another thread it breaks off what is being sent."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        Changed: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            total = hashlib.sha256()
            while block := file.read(_BLOCK):
                total.update(block)
    except OSError as error:
        raise Changed(f"the file of this item cannot be read: {error.strerror}") from None
    return total.hexdigest()
