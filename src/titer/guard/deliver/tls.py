"""Transport security of what the guard sends (BCP 195, PS3.15 B.12): TLS 1.2 or later, both sides known."""

from __future__ import annotations

import ssl

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.settings import DestinationSettings


def client_context(home: Home, destination: DestinationSettings) -> ssl.SSLContext | None:
    """Return what a destination's TLS needs, None where it has none of its own.

    Raises:
        SpecError: a certificate, a key or the authorities cannot be read.
    """
    if destination.tls is None:
        return None
    tls = destination.tls
    try:
        made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(home.root / tls.authorities))
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(str(home.root / tls.certificate), str(home.root / tls.key))
    except OSError as error:  # ssl.SSLError is one
        raise SpecError(f"destinations.{destination.name}.tls cannot be used: {error.strerror or error}") from None
    return made
