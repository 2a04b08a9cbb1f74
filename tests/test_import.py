"""Imports stay light: `import titer` takes no torch, and neither do statistics and reports, ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import titer

SOURCES = Path(__file__).parents[1] / "src"


def _modules(code: str) -> set[str]:
    """Return the modules that a fresh process has after running code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_titer_takes_next_to_nothing():
    own = _modules("import titer") - _modules("pass")
    assert not {"torch", "numpy", "pandas", "pydantic", "scipy"} & own
    assert len(own) < 20, sorted(own)


@pytest.mark.parametrize("package", ["stats", "report"])
def test_statistics_and_reports_never_import_torch(package):
    walk = f"""
import pkgutil, importlib, titer.{package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
    loaded = _modules(walk)
    assert sum(name.startswith(f"titer.{package}.") for name in loaded) > 3
    assert not {"torch", "titer.core.model"} & loaded


@pytest.mark.parametrize("name", sorted(set(titer.__all__) - {"__version__"}))
def test_every_public_name_is_there(name):
    assert getattr(titer, name).__name__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'titer' has no attribute 'asess'"):
        titer.asess  # noqa: B018
