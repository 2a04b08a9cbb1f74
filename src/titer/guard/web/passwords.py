"""Secrets of accounts: argon2id for passwords, SHA-256 for random tokens, AES-GCM for second factors."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import secrets

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from titer.core.errors import SpecError

SHORTEST, LONGEST = 12, 256
"""Characters of a password (NIST SP 800-63B, 5.1.1.2: length, no rules of composition)."""
_STEP = 30
_NONCE = 12

_hasher = PasswordHasher()
"""Argon2id with the second recommended option of RFC 9106, section 4: 3 passes, 64 MiB, 4 lanes."""


def hashed(password: str) -> str:
    """Return the encoded argon2id hash; SpecError where the password is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise SpecError(f"a password of {len(password)} characters: allowed are {SHORTEST} to {LONGEST}")
    return _hasher.hash(password)


def verified(encoded: str | None, password: str) -> bool:
    """Whether a password is the one that was hashed; takes as long where there is none."""
    try:
        right = _hasher.verify(encoded or _nobody(), password[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return right and encoded is not None


def new_token() -> str:
    """Return 256 random bits in URL-safe letters."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return the SHA-256 under which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_totp() -> str:
    """Return a new secret of RFC 6238, base32."""
    return pyotp.random_base32()


def totp_address(secret: str, account: str) -> str:
    """Return the otpauth:// address that an authenticator takes."""
    return str(pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name="Titer guard"))


def totp_step(secret: str, code: str, at: float, after: int = 0) -> int | None:
    """Return the time step of a right code, None of a wrong one.

    Args:
        secret: base32.
        code: six digits.
        at: seconds UTC.
        after: the last step that was used: a code serves once (RFC 6238, section 5.2).
    """
    now = int(at // _STEP)
    for step in (now, now - 1, now + 1):
        expected = pyotp.TOTP(secret).at(step * _STEP)
        if step > after and secrets.compare_digest(str(expected).encode(), code.strip().encode()):
            return step
    return None


def sealed(key: bytes, text: str) -> str:
    """Encrypt a secret for the database, by a key derived from one that stands outside it (RFC 5869, AES-256-GCM)."""
    nonce = os.urandom(_NONCE)
    return base64.b64encode(nonce + AESGCM(_derived(key)).encrypt(nonce, text.encode(), None)).decode()


def opened(key: bytes, text: str) -> str:
    """Decrypt what `sealed` made; SpecError where the key is another one or the text was changed."""
    try:
        content = base64.b64decode(text, validate=True)
        return AESGCM(_derived(key)).decrypt(content[:_NONCE], content[_NONCE:], None).decode()
    except (InvalidTag, ValueError):
        raise SpecError("a second factor was sealed with another identity.key") from None


@functools.cache
def _nobody() -> str:
    """Return the hash that is checked where there is no account, so that the time of an answer does not say so."""
    return _hasher.hash(secrets.token_hex(16))


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"titer guard totp").derive(key)
