"""Qualities of reads: what tampers of FASTQ and BAM files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.protocols import Tampered

Quality = Annotated[int, Field(ge=0, le=93)]
"""Phred quality as both formats can write it."""

ReadShare = Annotated[float, Field(gt=0, le=1)]

Edit = Callable[[str, bytes], tuple[bytes, int, int]]
"""From a file's name and content to its new content, how many reads changed, and how many there are."""


def drawn(reads: int, share: float, rng: Generator) -> Tensor:
    """Return bool[reads], which reads are edited."""
    return torch.rand(reads, generator=rng) <= share


def set_qualities(files: Mapping[str, bytes], form: str, quality: int, edit: Edit) -> Tampered:
    """Return the files after `edit`.

    Raises:
        Incompatible: there is no file, or one in which nothing changed.
    """
    if not files:
        raise Incompatible(f"a {form} file is needed")
    out, changed = {}, []
    for name, content in files.items():
        out[name], count, reads = edit(name, content)
        if not count:
            raise Incompatible(f"{name}: no read that was chosen has another quality than {quality}")
        changed.append(f"{name}: {count} of {reads} reads got quality {quality} at every base")
    return Tampered(files=out, changed=tuple(changed))
