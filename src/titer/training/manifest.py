"""Signed manifests: the sha256 of every sample as it was collected, signed with Ed25519 (RFC 8032)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.record import Samples, SignedManifest

FORMAT_VERSION = 1
_EXTRA = "signing"


def row_digests(samples: Samples) -> Iterator[str]:
    """Yield the sha256 of each row: values, label, id and patient."""
    values, labels = samples.x.cpu(), samples.y.cpu()
    for row, (name, patient) in enumerate(zip(samples.ids, samples.patients, strict=True)):
        sha = hashlib.sha256(f"{len(name)}:{name}{len(patient)}:{patient}{tuple(values.shape[1:])}".encode())
        sha.update(values[row].contiguous().numpy().tobytes())
        sha.update(labels[row].contiguous().numpy().tobytes())
        yield sha.hexdigest()


def new_key() -> tuple[bytes, bytes]:
    """Return a new private and public key, 32 bytes each."""
    secret = _ed25519().Ed25519PrivateKey.generate()
    return secret.private_bytes_raw(), secret.public_key().public_bytes_raw()


def sign(samples: Samples, secret: bytes) -> SignedManifest:
    """Return the manifest of the samples, signed with a private key of 32 bytes."""
    return sign_rows(dict(zip(samples.ids, row_digests(samples), strict=True)), secret)


def sign_rows(rows: Mapping[str, str], secret: bytes) -> SignedManifest:
    """Return the manifest of rows given as id to digest, signed with a private key of 32 bytes."""
    body = {"format_version": FORMAT_VERSION, "rows": dict(rows)}
    key = _private(secret)
    content = body | {"signature": key.sign(_canonical(body)).hex()}
    text = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    return SignedManifest(text=text, key=key.public_key().public_bytes_raw())


def signed_rows(manifest: SignedManifest, where: str = "manifest") -> dict[str, str]:
    """Return id to digest of the signed rows, the signature checked with the key that is trusted.

    Raises:
        SpecError: no manifest, another version, or a signature that this key did not make.
    """
    content = _read(manifest.text, where)
    body = {name: value for name, value in content.items() if name != "signature"}
    from cryptography.exceptions import InvalidSignature

    try:
        _public(manifest.key).verify(bytes.fromhex(content["signature"]), _canonical(body))
    except (InvalidSignature, ValueError):
        raise SpecError(
            f"{where}: the signature is not of this key, or the file was changed after it was signed"
        ) from None
    return dict(content["rows"])


def _read(text: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise SpecError(f"{where} is no JSON: a manifest that `titer data sign` wrote is needed") from None
    rows = content.get("rows") if isinstance(content, dict) else None
    texts = isinstance(rows, dict) and all(isinstance(one, str) for one in rows.values())
    if not isinstance(content, dict) or not texts or not isinstance(content.get("signature"), str):
        raise SpecError(f"{where} holds no rows with digests and a signature: it is no manifest")
    if content.get("format_version") != FORMAT_VERSION:
        raise SpecError(f"{where} has format_version {content.get('format_version')!r}: allowed is {FORMAT_VERSION}")
    return content


def _canonical(body: dict[str, Any]) -> bytes:
    """Return the bytes that are signed: JSON with keys in order and no blanks."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _private(secret: bytes) -> Any:
    try:
        return _ed25519().Ed25519PrivateKey.from_private_bytes(secret)
    except ValueError:
        raise SpecError(f"a private key has 32 bytes, and this one has {len(secret)}") from None


def _public(key: bytes) -> Any:
    try:
        return _ed25519().Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        raise SpecError(f"a public key has 32 bytes, and this one has {len(key)}") from None


def _ed25519() -> Any:
    return need("cryptography.hazmat.primitives.asymmetric.ed25519", _EXTRA)
