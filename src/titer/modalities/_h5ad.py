"""AnnData files (.h5ad): rows are samples, columns are genes; the matrix is read in blocks, and nothing else of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from titer.core.errors import SpecError, TiterError
from titer.core.extras import need
from titer.modalities._matrix import Matrix, Wanted, sorted_columns

_BLOCK_VALUES = 2**22
_PACKED = 2_000
_SMALL = 2**20


def read_h5ad(path: Path, wanted: Wanted, where: str) -> Matrix:
    """Read `X` (or a layer), `obs` and the names of `var`; the rest of the file stays on the disk.

    Raises:
        SpecError: a damaged file, or one that is no AnnData of samples by genes.
    """
    h5py, io = need("h5py", "omics"), need("anndata.io", "omics")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of older versions of the format, which are read all the same
            with h5py.File(path, "r") as file:
                return _read(file, io, path, wanted, where)
    except TiterError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file makes HDF5 and anndata raise a dozen kinds of error
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        raise SpecError(f"{where} = {str(path)!r} is no AnnData file that can be read: {reason}") from None


def _read(file: Any, io: Any, path: Path, wanted: Wanted, where: str) -> Matrix:
    for name in ("obs", "var", "X"):
        if name not in file:
            raise SpecError(f"{where} = {str(path)!r} is no AnnData file: it has no {name}")
    _refuse_bombs(file, path, where)
    obs, var = io.read_elem(file["obs"]), io.read_elem(file["var"])
    genes = [str(one) for one in var.index]
    titles = [str(one) for one in obs.columns]
    both = sorted(set(genes) & set(titles))
    if both:
        raise SpecError(f"{where} = {str(path)!r} calls an obs column and a gene {both[0]!r}: rename one of them")
    words, kept = sorted_columns([*titles, *genes], path.name, _without_other_columns(titles, wanted), where)
    places = [i - len(titles) for i in kept]
    x = _values(_matrix(file, io, wanted.layer, path, where), (len(obs), len(genes)), path, where)
    return Matrix(
        place=path.name,
        ids=tuple(str(one) for one in obs.index),
        features=tuple(genes[i] for i in places),
        x=x if len(places) == len(genes) else x[:, places],
        columns={title: [str(value).strip() for value in obs[title]] for title in words},
    )


def _without_other_columns(titles: list[str], wanted: Wanted) -> Wanted:
    """Return what is wanted with every other column of obs left out: none of them is a gene."""
    others = [title for title in titles if title not in (*wanted.needed, *wanted.optional)]
    return Wanted(
        needed=wanted.needed, optional=wanted.optional, ignored=tuple(dict.fromkeys((*wanted.ignored, *others)))
    )


def _matrix(file: Any, io: Any, layer: str | None, path: Path, where: str) -> Any:
    found = file["X"] if layer is None else file.get(f"layers/{layer}")
    if found is None:
        raise SpecError(f"data.layer = {layer!r}: {where} = {str(path)!r} has no such layer")
    return found if hasattr(found, "shape") else io.sparse_dataset(found)


def _values(found: Any, shape: tuple[int, int], path: Path, where: str) -> np.ndarray:
    """Return the matrix as float32, read in blocks of rows."""
    if tuple(found.shape) != shape:
        raise SpecError(f"{where} = {str(path)!r}: X is {tuple(found.shape)}, obs and var say {shape}")
    x = np.empty(shape, dtype=np.float32)
    for rows in _blocks(shape):
        block = found[rows]
        x[rows] = block.toarray() if hasattr(block, "toarray") else block
    return x


def _blocks(shape: tuple[int, int]) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(shape[1], 1))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _refuse_bombs(file: Any, path: Path, where: str) -> None:
    """Refuse a file that claims far more than it can hold, before memory is asked for."""
    limit = max(_SMALL, _PACKED * path.stat().st_size)

    def look(name: str, one: Any) -> None:
        if getattr(one, "dtype", None) is not None and one.size is not None and one.size * one.dtype.itemsize > limit:
            raise SpecError(f"{where} = {str(path)!r}: its {name!r} claims {one.size} values, more than the file holds")

    file.visititems(look)
