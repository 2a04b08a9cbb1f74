"""Keys of a guard: one that signs checkpoints and receipts, one that hides patient identities."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from titer.core.errors import SpecError

SIGNING = "signing.pem"
VERIFYING = "verifying.pem"
IDENTITY = "identity.key"
_BYTES = 32


def make(folder: Path) -> None:
    """Write a new set of keys; what stands there already is left.

    `signing.pem` signs (Ed25519, PKCS 8), `verifying.pem` is its public half, to be kept elsewhere as well, and
    `identity.key` is the secret of the keyed digest of patient identities (HMAC-SHA-256, RFC 2104).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / SIGNING).exists():
        key = Ed25519PrivateKey.generate()
        plain = serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        _secret(folder / SIGNING, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / VERIFYING).write_bytes(public)
    if not (folder / IDENTITY).exists():
        _secret(folder / IDENTITY, secrets.token_bytes(_BYTES))


class Signer:
    """Signs bytes with a guard's key."""

    def __init__(self, folder: Path) -> None:
        """Read the key; SpecError names the file that is missing or is no Ed25519 key."""
        key = serialization.load_pem_private_key(read(folder / SIGNING), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise SpecError(f"{folder / SIGNING} is no Ed25519 key")
        self._key = key

    def sign(self, content: bytes) -> str:
        """Return the signature, 128 hexadecimal digits."""
        return self._key.sign(content).hex()


def signed(public: bytes, content: bytes, signature: str) -> bool:
    """Whether `signature` is of `content`, by the public key in PEM."""
    key = serialization.load_pem_public_key(public)
    if not isinstance(key, Ed25519PublicKey):
        raise SpecError("the verifying key is no Ed25519 key")
    try:
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def pseudonym(secret: bytes, *parts: str) -> str:
    """Return a keyed digest of an identity, the same for the same parts, 64 hexadecimal digits (RFC 2104)."""
    return hmac.new(secret, "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()


def read(path: Path) -> bytes:
    """Return a key file's bytes; SpecError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None


def _secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
