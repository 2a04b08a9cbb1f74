"""Calls into libraries that read damaged files: whatever they raise becomes one line that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from titer.core.errors import SpecError

_REASON = 100
Read = TypeVar("Read")


def guarded(name: str, read: Callable[[], Read]) -> Read:
    """Return what `read` does, its warnings kept quiet; SpecError for anything that it raises."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # noqa: BLE001 - a damaged file makes a library raise a dozen kinds of error
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise SpecError(f"{name} cannot be read: {reason}") from None
