from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from simulate import IMAGE, SINGLE, TABLE, Scene  # noqa: E402
from simulate_run import write_run  # noqa: E402

SCENES = {"image": IMAGE, "table": TABLE, "single": SINGLE}


@pytest.fixture(scope="session")
def masters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_run(tmp_path_factory.mktemp(name), scene) for name, scene in SCENES.items()}
