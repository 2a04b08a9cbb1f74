"""Optional dependencies: a missing extra is an error that names the command that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from titer.core.errors import SpecError


def need(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise SpecError with the command that installs `extra`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SpecError(
            f"{module} is not installed ({error}): pip install 'titer[{extra}]', in a clone pip install -e '.[{extra}]'"
        ) from None
