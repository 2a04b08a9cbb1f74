"""Where data files come from: the data directory, the user's cache, or a download with a digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.lib.npyio import NpzFile

from titer.core.errors import SpecError
from titer.core.places import cache_directory

Arrays = dict[str, np.ndarray]
_LARGE = 2**18
"""Bytes of an array above which it is mapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A file of a public data set: its place under the data directory, its address, and its digest (`md5:...`)."""

    place: str
    address: str
    digest: str
    licence: str


def data_directory() -> Path | None:
    """Return the directory named by TITER_DATA, or None; SpecError where it is set and no directory."""
    named = os.environ.get("TITER_DATA")
    if not named:
        return None
    if not Path(named).is_dir():
        raise SpecError(f"TITER_DATA = {named!r} is not a directory: it holds the data files, or is unset")
    return Path(named)


def locate(file: DataFile) -> Path | None:
    """Return where the file lies on this machine: the data directory first, then the user's cache."""
    directory = data_directory()
    places = ([] if directory is None else [directory / file.place]) + [cache_directory() / "data" / file.place]
    return next((place for place in places if place.is_file()), None)


def fetch(file: DataFile) -> Path:
    """Return the file, downloaded to the user's cache where it is nowhere on this machine.

    Raises:
        SpecError: absent and not to be had; says what to download and where to put it.
    """
    found = locate(file)
    if found is not None:
        return found
    import pooch

    target = cache_directory() / "data" / file.place
    logger = pooch.get_logger()
    logger.setLevel("ERROR")
    try:
        pooch.retrieve(file.address, known_hash=file.digest, fname=target.name, path=target.parent)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"data file {file.place!r} is not on this machine and could not be downloaded ({type(error).__name__}): "
            f"download {file.address} ({file.digest}) and put it at {target}, or set TITER_DATA to a directory "
            f"that holds {file.place}"
        ) from None
    return target


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def catalogue() -> dict[str, tuple[DataFile, ...]]:
    """Return the public data files of every modality, by its name; empty where it needs none."""
    import sys

    from titer.core.registry import SHELVES

    return {
        name: tuple(getattr(sys.modules[plugin.factory.__module__], "FILES", ()))
        for name, plugin in SHELVES["modalities"].all().items()
    }


def read_npz(path: Path, where: str) -> Arrays:
    """Return every array of an .npz file. Python objects are refused: to unpickle one is to run it.

    Large arrays are unpacked to a nameless file in the user's cache and mapped: what was not read takes no memory.

    Raises:
        SpecError: no such file, a damaged one, or one that holds more than numbers and text.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    name, content = "", {}
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            for name in file.files if isinstance(file, NpzFile) else ():  # a lone array (.npy) has no names
                content[name] = _member(file, name)
    except Exception as error:  # noqa: BLE001 - a damaged file makes zipfile and NumPy raise a dozen kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        what = f"its array {name!r}" if name else "it"
        raise SpecError(
            f"{where} = {str(path)!r}: {what} cannot be read ({reason}); allowed is an .npz file of numbers and text, "
            "not of Python objects: nothing is unpickled"
        ) from None
    return content


def scratch(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Return an array to fill; a large one is a nameless file in the user's cache, mapped."""
    if int(np.prod(shape, dtype=object)) * kind.itemsize <= _LARGE:
        return np.empty(shape, kind)
    place = cache_directory()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place) as file:
        return np.memmap(file, dtype=kind, mode="w+", shape=shape)


def _member(file: NpzFile, name: str) -> np.ndarray:
    """Return one array; ValueError where there is no room for it, and whatever NumPy raises for a damaged one."""
    archive = cast("zipfile.ZipFile", file.zip)  # None only once the file is closed
    packed = next((one for one in archive.infolist() if one.filename == f"{name}.npy"), None)
    if packed is None or packed.file_size <= _LARGE:
        return file[name]
    place = cache_directory()
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if packed.file_size > free:
        raise ValueError(f"needs {packed.file_size} bytes in {str(place)!r}, where {free} are free")
    with tempfile.NamedTemporaryFile(dir=place, suffix=".npy") as unpacked:
        with archive.open(packed) as stream:
            shutil.copyfileobj(stream, unpacked, _LARGE)
        unpacked.flush()
        found: np.ndarray = np.load(unpacked.name, mmap_mode="c", allow_pickle=False)
    return found
