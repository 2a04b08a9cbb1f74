"""`titer data keys`, `sign` and `verify` on a table of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from titer.cli.main import app
from titer.core.errors import SpecError

pytest.importorskip("cryptography")

PLAN = """
name = "own"
attacks = ["fgsm"]
data = { name = "arrays", file = "own.npz" }
models = [{ label = "mlp", network = "mlp" }]
threats = [{ norm = "linf", eps = [0.1], unit = "sd" }]
"""


def write(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.savez(folder / "own.npz", x=x, y=y)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(PLAN)
    rng = np.random.default_rng(0)
    write(tmp_path, rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2)
    run("data", "keys", "keys")
    run("data", "sign", "own.toml", "--key", "keys/titer.key")
    return tmp_path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


VERIFY = ("data", "verify", "own.toml", "manifest.json", "--key", "keys/titer.pub")


def test_what_was_signed_verifies(folder: Path) -> None:
    assert "40 samples are as they were signed" in run(*VERIFY)
    assert (folder / "keys" / "titer.key").stat().st_mode & 0o077 == 0, "nobody else reads the private key"


def test_a_changed_label_and_an_added_row_are_named(folder: Path) -> None:
    with np.load(folder / "own.npz") as stored:
        x, y = stored["x"], stored["y"].copy()
    y[7] = 1 - y[7]
    write(folder, np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]]))
    with pytest.raises(SpecError, match=r"1 changed \(row_00007\), 1 added \(row_00040\)"):
        run(*VERIFY)


def test_a_missing_row_is_named(folder: Path) -> None:
    with np.load(folder / "own.npz") as stored:
        x, y = stored["x"], stored["y"]
    write(folder, x[:39], y[:39])
    with pytest.raises(SpecError, match=r"1 missing \(row_00039\)"):
        run(*VERIFY)


def test_another_key_a_broken_key_and_no_key_are_refused(folder: Path) -> None:
    run("data", "keys", "others")
    with pytest.raises(SpecError, match="not of this key"):
        run(*VERIFY[:-1], "others/titer.pub")
    (folder / "broken.pub").write_text("xyz")
    with pytest.raises(SpecError, match="64 hexadecimal digits"):
        run(*VERIFY[:-1], "broken.pub")
    with pytest.raises(SpecError, match="cannot be read"):
        run(*VERIFY[:-1], "none.pub")


def test_a_private_key_is_never_written_over(folder: Path) -> None:
    before = (folder / "keys" / "titer.key").read_text()
    with pytest.raises(SpecError, match="already"):
        run("data", "keys", "keys")
    assert (folder / "keys" / "titer.key").read_text() == before
