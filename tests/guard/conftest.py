"""A guard in an empty folder, on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.settings import load

SETTINGS = """
[[routes]]
name = "all"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "guard")
    keys.make(home.keys)
    home.settings.write_text(SETTINGS)
    return home


@pytest.fixture
def context(home: Home) -> Iterator[Context]:
    context = opened(home, load(home))
    yield context
    context.close()
