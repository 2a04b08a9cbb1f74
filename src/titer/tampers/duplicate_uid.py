"""Duplicate UID: a second image under the same SOP Instance UID, with other content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import Datasets, edited
from titer.tampers._draws import pick
from titer.tampers._pixels import grey_levels, put_grey_levels


@tamper(
    "duplicate-uid",
    files="dicom",
    misses="reading each file with strict values: a file alone cannot show that its UID names another image too",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def duplicate_uid() -> Tamper:
    """Add a mirrored copy of one file under the same UIDs: an archive keeps one of the two, and which is chance."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        if not files:
            raise Incompatible("duplicate-uid needs a file")
        name = pick(list(files), rng)
        done = edited({name: files[name]}, _mirrored)
        place = PurePath(name)
        copy = str(place.with_name(f"{place.stem}-duplicate{place.suffix}"))
        if copy in files:
            raise Incompatible(f"duplicate-uid: there is a file {copy} already")
        return Tampered(
            files={**files, copy: done.files[name]},
            changed=tuple(f"{copy} was added: {told}" for told in done.changed),
        )

    return run


def _mirrored(datasets: Datasets) -> dict[str, str]:
    changes = {}
    for name, dataset in datasets.items():
        count = put_grey_levels(name, dataset, np.fliplr(grey_levels(name, dataset)))
        if not count:
            raise Incompatible(f"duplicate-uid: {name} is its own mirror image")
        changes[name] = f"the same SOPInstanceUID {dataset.get('SOPInstanceUID')}, mirrored pixels ({count} differ)"
    return changes
