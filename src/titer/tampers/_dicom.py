"""Edit DICOM files: everything but the elements that a tamper names stays as it was."""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from titer.core.errors import Incompatible, TiterError
from titer.core.extras import need
from titer.core.protocols import Tampered

if TYPE_CHECKING:
    from pydicom import FileDataset

Datasets = Mapping[str, "FileDataset"]
Edit = Callable[[Datasets], Mapping[str, str]]
"""Changes data sets in place; returns what was changed in each file, in a sentence without the file's name."""


def edited(files: Mapping[str, bytes], edit: Edit) -> Tampered:
    """Return the files with those that `edit` names written anew; the others keep every byte.

    Raises:
        Incompatible: a file is no DICOM file with a preamble, or cannot be read or written; says which.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that are against the standard: they stay as they are
        datasets = {name: read(name, content) for name, content in files.items()}
        try:
            changes = edit(datasets)
        except TiterError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged value makes pydicom raise a dozen kinds of error
            raise Incompatible(f"a DICOM value cannot be read: {_told(error)}") from None
        content = {name: written(name, datasets[name]) for name in changes}
    return Tampered(
        files={name: content.get(name, before) for name, before in files.items()},
        changed=tuple(f"{name}: {change}" for name, change in changes.items()),
    )


def read(name: str, content: bytes) -> FileDataset:
    """Return the data set of a DICOM file."""
    pydicom = need("pydicom", "imaging")
    try:
        dataset: FileDataset = pydicom.dcmread(io.BytesIO(content))
        list(dataset.iterall())  # reads every value: a bad one is told here, and not halfway
    except Exception as error:  # noqa: BLE001 - as above
        raise Incompatible(f"{name} is no DICOM file that can be read: {_told(error)}") from None
    if not len(dataset):
        raise Incompatible(f"{name} holds no DICOM element")
    return dataset


def written(name: str, dataset: FileDataset) -> bytes:
    """Return the bytes of a data set, in its own transfer syntax."""
    stream = io.BytesIO()
    try:
        dataset.save_as(stream, enforce_file_format=True)
        read(name, stream.getvalue())
    except TiterError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise Incompatible(f"{name} cannot be written as DICOM again: {_told(error)}") from None
    return stream.getvalue()


def by(datasets: Datasets, keyword: str) -> dict[str, list[str]]:
    """Return the files' names by the text of one of their elements; those without it are left out."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, dataset in datasets.items():
        value = str(dataset.get(keyword) or "").strip()
        if value:
            groups[value].append(name)
    return dict(groups)


def each(datasets: Datasets, change: Callable[[FileDataset], str], reason: str) -> dict[str, str]:
    """Return what `change` did to each file that it could change.

    Raises:
        Incompatible: it could change none; says `reason`.
    """
    changes = {name: told for name, dataset in datasets.items() if (told := change(dataset))}
    if not changes:
        raise Incompatible(reason)
    return changes


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
