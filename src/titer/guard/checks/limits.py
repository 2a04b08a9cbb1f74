"""What the settings say about checks: whose signatures count, and how long checks of one subject may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.settings import ChecksSettings

_KINDS = (".pem", ".crt", ".cer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Authorities of digital signatures, none: whoever signed; and the seconds for one object, and for one series."""

    authorities: tuple[x509.Certificate, ...] = ()
    object_seconds: float = float("inf")
    series_seconds: float = float("inf")
    now: Callable[[], float] = time.monotonic

    def clock(self, seconds: float) -> Callable[[], bool]:
        """Return what says whether so many seconds from now are over."""
        end = self.now() + seconds
        return lambda: self.now() > end


NO_LIMITS = Limits()


def limits_of(home: Home, settings: ChecksSettings) -> Limits:
    """Read what the settings name.

    Raises:
        SpecError: the folder of authorities holds no certificate, or a file in it is none.
    """
    folder = settings.signature_authorities
    return Limits(
        authorities=() if folder is None else tuple(_certificates(home.root / folder)),
        object_seconds=settings.object_seconds,
        series_seconds=settings.series_seconds,
    )


def _certificates(folder: Path) -> Iterator[x509.Certificate]:
    if not folder.is_dir():
        raise SpecError(f"checks.signature_authorities = {str(folder)!r} is no folder: allowed is one of PEM files")
    paths = sorted(path for path in folder.iterdir() if path.suffix in _KINDS)
    if not paths:
        raise SpecError(
            f"checks.signature_authorities = {str(folder)!r} holds no certificate: allowed are {', '.join(_KINDS)}"
        )
    for path in paths:
        try:
            yield from x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            raise SpecError(f"checks.signature_authorities: {path.name} holds no PEM certificate") from None
