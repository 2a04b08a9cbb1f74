"""Random choices that a seed repeats on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Generator

One = TypeVar("One")


def number(below: int, rng: Generator) -> int:
    """Return a whole number from 0 to `below` - 1."""
    return int(torch.randint(below, (1,), generator=rng))


def pick(items: Sequence[One], rng: Generator) -> One:
    """Return one of the items."""
    return items[number(len(items), rng)]


def some(items: Sequence[One], count: int, rng: Generator) -> list[One]:
    """Return `count` different items in their own order; all where there are fewer."""
    chosen = sorted(torch.randperm(len(items), generator=rng)[:count].tolist())
    return [items[i] for i in chosen]
