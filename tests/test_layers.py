"""The layers of the design hold: import-linter's contracts, and a proof that it would see a breach."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import titer
from titer.core.registry import SHELVES

ROOT = Path(__file__).parents[1]


def _lint(*settings: str) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", *settings],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_layers_hold():
    done = _lint("--config", ".importlinter")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout


def test_a_breach_is_seen(tmp_path):
    # The same layers upside down: attacks below the core they import.
    config = tmp_path / "upside-down"
    config.write_text(
        "[importlinter]\nroot_package = titer\n\n[importlinter:contract:layers]\nname = Upside down\n"
        "type = layers\ncontainers = titer\nlayers =\n    core\n    attacks\n"
    )
    done = _lint("--config", str(config))
    assert done.returncode != 0
    assert "titer.attacks is not allowed to import titer.core" in done.stdout


def test_no_plugin_imports_another():
    """Shelves share private modules (`_files.py`) only; no list of plugins is kept for this."""
    root = Path(titer.__file__).parent
    for shelf in SHELVES:
        public = {path.stem for path in (root / shelf).glob("[!_]*.py")}
        assert public
        for name in public:
            tree = ast.parse((root / shelf / f"{name}.py").read_text())
            modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
            others = {f"titer.{shelf}.{other}" for other in public - {name}}
            assert not modules & others, f"{shelf}/{name}.py imports {modules & others}"
