"""Randomness is an argument: every seed derives from the plan's, drawn on the CPU so that every device repeats it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator


def derive(seed: int, *names: object) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, in order.

    Cells drawn this way do not depend on which other cells run, so that resuming changes nothing.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> Generator:
    """Return a CPU generator seeded with `derive(seed, *names)`."""
    import torch

    return torch.Generator(device="cpu").manual_seed(derive(seed, *names))
