"""What the documentation's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from titer.core.registry import SHELVES


@pytest.fixture(autouse=True)
def _own_shelves() -> Iterator[None]:
    """Forget the plugins that a page registers: other tests run on every plugin there is."""
    before = {name: shelf.all() for name, shelf in SHELVES.items()}
    yield
    for name, shelf in SHELVES.items():
        shelf._plugins.clear()
        shelf._plugins.update(before[name])
        shelf._walked = True
