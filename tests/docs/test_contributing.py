"""The attack of CONTRIBUTING.md, installed as an outside package, is found, checked and run like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.docs.pages import ROOT, as_toml, blocks
from titer.cli.main import app
from titer.core.errors import SpecError
from titer.core.plugins import make
from titer.core.registry import SHELVES

PAGE = ROOT / "CONTRIBUTING.md"
PLAN = """
name = "outside"
trials = 1
attacks = [{ name = "uniform-noise", draws = 5 }]
data = { name = "cytology" }
training = { epochs = 2 }
models = [{ label = "mlp", network = "mlp" }]
threats = [{ norm = "linf", eps = [0.5], unit = "sd", access = "decision" }]
"""


@pytest.fixture
def outside_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay out what pip would: a package with the page's file, and its metadata with the page's entry point."""
    source = next(block for block in blocks(PAGE) if block.saved == "uniform_noise.py")
    entries = next(as_toml(block.text) for block in blocks(PAGE) if "entry-points" in block.text)
    package, metadata = tmp_path / "my_package", tmp_path / "my_package-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").write_text("")
    (package / "uniform_noise.py").write_text(source.text)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in names.items())
        for group, names in entries["project"]["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    SHELVES["attacks"]._walked = False
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("outside_package")
def test_it_is_listed() -> None:
    done = CliRunner().invoke(app, ["plugins", "attacks"], catch_exceptions=False)
    assert "uniform-noise  Uniform noise" in done.output
    assert "draws: int = 20" in done.output


@pytest.mark.usefixtures("outside_package")
def test_its_limits_hold() -> None:
    with pytest.raises(SpecError, match="draws = 0"):
        make("attacks", {"name": "uniform-noise", "draws": 0})


def test_a_plan_runs_it(outside_package: Path) -> None:
    Path("outside.toml").write_text(PLAN)
    CliRunner().invoke(app, ["assess", "outside.toml", "--workers", "1"], catch_exceptions=False)
    outcomes = pd.read_parquet(outside_package / "runs" / "outside" / "outcomes.parquet")
    noise = outcomes[outcomes["attack"] == "uniform-noise"]
    clean = outcomes[outcomes["attack"] == "none"]
    assert len(noise) == len(clean)
    assert noise["won"].sum() >= clean["won"].sum()
    assert not noise["put_back"].any()
    attacked = noise[noise["clean_prediction"] == noise["label"]]
    assert attacked["forwards"].between(1, 5).all()
    assert (noise["backwards"] == 0).all()


def test_the_file_may_stand_in_titer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(block for block in blocks(PAGE) if block.saved == "uniform_noise.py")
    (tmp_path / "uniform_noise.py").write_text(source.text)
    import titer.attacks

    monkeypatch.setattr(titer.attacks, "__path__", [*titer.attacks.__path__, str(tmp_path)])
    SHELVES["attacks"]._walked = False
    try:
        assert SHELVES["attacks"].get("uniform-noise", "attacks").factory.__module__ == "titer.attacks.uniform_noise"
    finally:
        sys.modules.pop("titer.attacks.uniform_noise", None)
        vars(titer.attacks).pop("uniform_noise", None)
