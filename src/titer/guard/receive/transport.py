"""TLS of the DICOM port: the BCP 195 profile of PS3.15, annex B.12, with a certificate of the peer."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from titer.core.errors import SpecError
from titer.guard.settings import TLSSettings

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, section 4.2)."""


def server_context(tls: TLSSettings, root: Path) -> ssl.SSLContext:
    """Return the context of a port.

    Args:
        tls: certificate, key, and the authorities whose certificates peers must have.
        root: folder that the paths are relative to.

    Raises:
        SpecError: a file is missing, or is not what it must be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(root / tls.certificate, root / tls.key)
        context.load_verify_locations(root / tls.authorities)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(f"dicom.tls: certificate, key or authorities cannot be used: {error}") from None
    return context


def client_context(tls: TLSSettings, root: Path, destination: str) -> ssl.SSLContext:
    """Return the context of connections to a destination: its authorities, our certificate; SpecError as above."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(root / tls.certificate, root / tls.key)
        context.load_verify_locations(root / tls.authorities)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(f"destinations.{destination}.tls cannot be used: {error}") from None
    return context


def fingerprint(certificate: bytes | None) -> str | None:
    """Return the SHA-256 of a certificate in DER, 64 hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest() if certificate else None
