"""A bundle that is made once, and guards with a route for chest X-rays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
from tests.guard.judge.scene import MODEL, ROUTE, Log

from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.judge.demo import demo_bundle
from titer.guard.settings import load


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "chest"
    demo_bundle(folder)
    return folder


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    """Make guards: without a model, or with the bundle; `more` is TOML that stands first, `tail` last: of the route."""
    made: list[Context] = []

    def make(
        *, model: Path | None = None, named: bool = False, more: str = "", tail: str = "", **clock: object
    ) -> Context:
        home = Home(tmp_path / f"guard-{len(made)}")
        keys.make(home.keys)
        home.settings.write_text(more + (MODEL if model or named else ROUTE) + tail)
        if model is not None:
            copytree(model, home.models / "chest")
        elif named:
            (home.models / "chest").mkdir(parents=True)
            (home.models / "chest" / "bundle.json").write_text("{}")
        made.append(opened(home, load(home), **clock))
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def log() -> Log:
    return Log()
