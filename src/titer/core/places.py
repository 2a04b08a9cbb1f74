"""Where Titer keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the user's cache: TITER_CACHE, else the platform's."""
    from platformdirs import user_cache_path

    named = os.environ.get("TITER_CACHE")
    return Path(named) if named else user_cache_path("titer")


def weights_cache() -> Path:
    """Return where trained weights are kept, under the digest of everything they depend on."""
    return cache_directory() / "weights"
