"""The process that opens AnnData files: HDF5 is a C library, and a damaged file may kill whoever reads it.

It takes one JSON line a request on its standard input and answers with JSON lines; after {"block": n} come n bytes of
float32. AnnData's layout: https://anndata.readthedocs.io/en/latest/fileformat-prose.html.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK_VALUES = 2**22
_PACKED = 2_000
_SMALL = 2**20
_TEXT_KINDS = "OSU"

Answer = tuple[dict[str, Any], bytes]


def main() -> None:
    """Answer requests until the input ends; whatever goes wrong is an answer too."""
    for line in sys.stdin.buffer:
        try:
            for message, payload in _answers(json.loads(line)):
                _say(message, payload)
        except Exception as error:  # noqa: BLE001 - a damaged file makes HDF5 raise a dozen kinds of error
            _say({"error": (" ".join(str(error).split()) or type(error).__name__)[:160]})


def _say(message: dict[str, Any], payload: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n" + payload)
    sys.stdout.buffer.flush()


def _answers(request: dict[str, Any]) -> Iterator[Answer]:
    import h5py

    path = Path(request["path"])
    with h5py.File(path, "r") as file:
        _refuse_bombs(file, path)
        place = "X" if request["layer"] is None else f"layers/{request['layer']}"
        if request["what"] == "names":
            yield _names(file, place, request["columns"]), b""
        else:
            yield from _values(file[place])
            yield {"done": True}, b""


def _names(file: Any, place: str, columns: list[str]) -> dict[str, Any]:
    """Return the ids, the genes, the titles of obs, the texts of `columns`, and the shape of the matrix."""
    for name in ("obs", "var", "X"):
        if name not in file:
            raise ValueError(f"it has no {name}")
    if place not in file:
        raise ValueError(f"it has no {place}")
    obs, var = file["obs"], file["var"]
    if not hasattr(obs, "keys") or "_index" not in obs.attrs or "_index" not in var.attrs:
        raise ValueError("obs or var is no table of this version of the format: open it in anndata and write it again")
    index = str(obs.attrs["_index"])
    titles = [name for name in obs if name not in (index, "__categories")]
    return {
        "ids": _texts(obs[index]),
        "genes": _texts(var[str(var.attrs["_index"])]),
        "titles": titles,
        "columns": {name: _texts(obs[name]) for name in columns if name in titles},
        "shape": list(_shape(file[place])),
    }


def _texts(found: Any) -> list[str]:
    """Return a column as text: an array, a categorical, or a nullable one; what is missing is empty."""
    if hasattr(found, "keys"):
        if "codes" in found:
            names, codes = _texts(found["categories"]), np.asarray(found["codes"][...], dtype=np.int64)
            return [names[code] if code >= 0 else "" for code in codes]
        gone = np.asarray(found["mask"][...], dtype=bool)
        return ["" if m else text for text, m in zip(_texts(found["values"]), gone, strict=True)]
    values = found.asstr()[...] if found.dtype.kind in _TEXT_KINDS else found[...]
    return [str(value).strip() for value in np.asarray(values).reshape(-1)]


def _shape(found: Any) -> tuple[int, ...]:
    shape = found.attrs["shape"] if hasattr(found, "keys") else found.shape
    return tuple(int(side) for side in shape)


def _values(found: Any) -> Iterator[Answer]:
    """Yield the matrix in blocks of rows, dense float32."""
    rows, width = _shape(found)
    step = max(1, _BLOCK_VALUES // max(width, 1))
    dense = not hasattr(found, "keys")
    packed = None if dense or found.attrs["encoding-type"] == "csr_matrix" else _by_column(found)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        if dense:
            block = np.asarray(found[start:stop], dtype=np.float32)
        elif packed is None:
            block = _sparse_rows(found, start, stop, width)
        else:
            block = np.asarray(packed[start:stop].toarray(), dtype=np.float32)
        content = np.ascontiguousarray(block).tobytes()
        yield {"block": len(content)}, content


def _sparse_rows(found: Any, start: int, stop: int, width: int) -> np.ndarray:
    """Return rows of a compressed-sparse-row matrix, dense."""
    ends = np.asarray(found["indptr"][start : stop + 1], dtype=np.int64)
    if (np.diff(ends) < 0).any():
        raise ValueError("the row pointers of its sparse matrix go backwards")
    values, places = found["data"][ends[0] : ends[-1]], found["indices"][ends[0] : ends[-1]]
    block = np.zeros((stop - start, width), dtype=np.float32)
    np.add.at(block, (np.repeat(np.arange(stop - start), np.diff(ends)), places), values)
    return block


def _by_column(found: Any) -> Any:
    """Return a compressed-sparse-column matrix by its rows; its entries are held, but not its zeros."""
    from scipy.sparse import csc_matrix

    parts = (found["data"][...], found["indices"][...], found["indptr"][...])
    whole = csc_matrix(parts, shape=_shape(found))
    whole.check_format(full_check=True)
    return whole.tocsr()


def _refuse_bombs(file: Any, path: Path) -> None:
    """Refuse a file that claims far more than it can hold, before memory is asked for."""
    limit = max(_SMALL, _PACKED * path.stat().st_size)

    def look(name: str, one: Any) -> None:
        if getattr(one, "dtype", None) is not None and one.size and one.size * one.dtype.itemsize > limit:
            raise ValueError(f"its {name!r} claims {one.size} values, more than the file holds")

    file.visititems(look)


if __name__ == "__main__":
    main()
