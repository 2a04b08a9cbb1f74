"""Images in a zip archive, read member by member, resized once and kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from titer.core.errors import SpecError
from titer.core.places import cache_directory
from titer.modalities._checks import listed
from titer.modalities._files import sha256
from titer.modalities._images import read_pixels

_LARGEST_MEMBER = 64 * 2**20
_VERSION = 1


def read_archive(path: Path, names: Sequence[str], *, channels: int, side: int, where: str = "data file") -> np.ndarray:
    """Return uint8[N, channels, side, side]: the named members of a zip archive in order, resized.

    One member is in memory at a time: what is returned is a file in the user's cache, mapped, and kept there under the
    digest of the archive.

    Raises:
        SpecError: no archive, a name that is not in it, a damaged member: all of them, by name.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    kept, shape = _kept_at(path, names, channels, side), (len(names), channels, side, side)
    found = _kept(kept, shape)
    if found is None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")  # two workers may read at once; the last one's file stays
        try:
            fill(np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape), path, names, where)
            found = np.load(part, mmap_mode="r", allow_pickle=False)
            part.replace(kept)
        finally:
            part.unlink(missing_ok=True)
    return found


def fill(pictures: np.ndarray, path: Path, names: Sequence[str], where: str) -> None:
    """Write the named members into `pictures`, uint8[N, channels, side, side]; SpecError as of `read_archive`."""
    broken = []
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SpecError(f"{where} = {str(path)!r} is not a zip archive: {_reason(error)}") from None
    with archive:
        for row, name in enumerate(names):
            try:
                pictures[row] = _member(archive, name, *pictures.shape[1:3])
            except ValueError as reason:
                broken.append(f"{name} ({reason})")
    if broken:
        raise SpecError(
            f"{where} = {str(path)!r}: {len(broken)} of {len(names)} images cannot be read: {listed(broken)}"
        )


def _member(archive: zipfile.ZipFile, name: str, channels: int, side: int) -> np.ndarray:
    """Return one member's pixels; ValueError with the reason where there are none."""
    try:
        size = archive.getinfo(name).file_size
    except KeyError:
        raise ValueError("not in the archive") from None
    if size > _LARGEST_MEMBER:
        raise ValueError(f"claims {size} bytes, allowed are {_LARGEST_MEMBER}")
    try:
        with archive.open(name) as stream:
            # No more than is allowed, whatever the archive says: a few bytes can unpack to gigabytes.
            content = stream.read(_LARGEST_MEMBER + 1)
    except Exception as error:  # noqa: BLE001 - a damaged member makes zipfile and zlib raise a dozen kinds of error
        raise ValueError(_reason(error)) from None
    pixels = read_pixels(io.BytesIO(content), channels, (side, side))
    if pixels.dtype != np.uint8:
        raise ValueError("has 16 bits, allowed are 8")
    return pixels


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def _kept_at(path: Path, names: Sequence[str], channels: int, side: int) -> Path:
    key = json.dumps([_VERSION, sha256(path), list(names), channels, side])
    return cache_directory() / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"


def _kept(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return what was kept, mapped, or None where there is nothing of this shape: a damaged file is read anew."""
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None
