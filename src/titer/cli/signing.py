"""`titer data keys`, `sign` and `verify`: a signed manifest of every sample, against changes after the collection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from titer.core.errors import SpecError

_KEY_BYTES = 32
_SHOWN = 10


def keys(
    folder: Annotated[Path, typer.Argument(help="Where titer.key (private) and titer.pub (public) are written.")],
) -> None:
    """Write a new pair of keys; the private one is for the owner alone, and is never written over."""
    from titer.training.manifest import new_key

    secret, public = new_key()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "titer.key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SpecError(f"folder = {str(folder)!r} has a titer.key already: name another folder") from None
    with os.fdopen(handle, "w") as file:
        file.write(secret.hex() + "\n")
    (folder / "titer.pub").write_text(public.hex() + "\n")
    typer.echo(f"{path} (keep it secret), {folder / 'titer.pub'}")


def sign(
    plan: Annotated[Path, typer.Argument(help="The plan whose data are signed.")],
    key: Annotated[Path, typer.Option(help="The private key, titer.key.")],
    out: Annotated[Path, typer.Option(help="The manifest that is written.")] = Path("manifest.json"),
) -> None:
    """Write the sha256 of every sample of a plan's data, signed with Ed25519."""
    from titer.assess.cells import atomic_write
    from titer.training.manifest import sign_rows

    secret, rows = _key(key), _digests(plan)
    atomic_write(out, sign_rows(rows, secret).text)
    typer.echo(f"{out}: {len(rows)} samples signed")


def verify(
    plan: Annotated[Path, typer.Argument(help="The plan whose data are compared.")],
    manifest: Annotated[Path, typer.Argument(help="The manifest, as `titer data sign` wrote it.")],
    key: Annotated[Path, typer.Option(help="The public key that is trusted, titer.pub.")],
) -> None:
    """Compare every sample of a plan's data with a signed manifest: changed, added and missing ones are an error."""
    from titer.core.record import SignedManifest
    from titer.training.manifest import signed_rows

    text = _bytes(manifest, "manifest")
    signed = signed_rows(SignedManifest(text=text, key=_key(key)), f"manifest = {str(manifest)!r}")
    found = _digests(plan)
    kinds = {
        "changed": [name for name in found if name in signed and signed[name] != found[name]],
        "added": [name for name in found if name not in signed],
        "missing": [name for name in signed if name not in found],
    }
    wrong = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
    if wrong:
        raise SpecError(f"manifest = {str(manifest)!r}: the data are not what was signed: {', '.join(wrong)}")
    typer.echo(f"{len(found)} samples are as they were signed")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _digests(plan: Path) -> dict[str, str]:
    """Return id to sha256 of every sample of the plan's data."""
    from titer.assess.plan import load_plan
    from titer.training.manifest import row_digests

    parts = load_plan(plan).load_data().parts().values()
    return {name: one for part in parts for name, one in zip(part.ids, row_digests(part), strict=True)}


def _key(path: Path) -> bytes:
    text = _bytes(path, "--key")
    try:
        found = bytes.fromhex(text.decode().strip())
    except ValueError:
        found = b""
    if len(found) != _KEY_BYTES:
        raise SpecError(f"--key = {str(path)!r} is no key: allowed is a file of 64 hexadecimal digits")
    return found


def _bytes(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"{where} = {str(path)!r} cannot be read: {error.strerror}") from None
