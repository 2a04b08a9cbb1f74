"""Rows that hold several modalities of one patient side by side: which values are whose."""

from __future__ import annotations

from collections.abc import Sequence

from titer.core.errors import SpecError


def check_parts(parts: Sequence[int], width: int, where: str) -> None:
    """Raise SpecError unless there are two parts or more, with the `width` values of a row in all."""
    if len(parts) < 2 or sum(parts) != width:
        allowed = f"two modalities or more, with the {width} values of a row in all"
        raise SpecError(f"{where}.parts = {list(parts)} is not allowed: {allowed}")
