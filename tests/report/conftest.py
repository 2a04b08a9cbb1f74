from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.simulate import IMAGE, SINGLE, TABLE
from tests.report.simulate_newer import AGE, BRAIN, XRAY
from tests.report.simulate_run import write_run
from titer.report.build import build

SCENES = {"image": IMAGE, "table": TABLE, "single": SINGLE, "brain": BRAIN, "age": AGE, "findings": XRAY}


@pytest.fixture(scope="session")
def masters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Simulated run folders with their reports built; never changed."""
    folders = {name: write_run(tmp_path_factory.mktemp(name), scene) for name, scene in SCENES.items()}
    for folder in folders.values():
        build(folder)
    return folders


@pytest.fixture(params=list(SCENES))
def master(request: pytest.FixtureRequest, masters: dict[str, Path]) -> Path:
    return masters[request.param]


@pytest.fixture
def copy(masters: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of a run folder, to be damaged at will."""
    return lambda name: Path(shutil.copytree(masters[name], tmp_path / name))
