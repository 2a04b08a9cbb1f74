"""Every example runs, and the README's is one of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 40


def test_readme_shows_the_first_example() -> None:
    shown = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    docstring, _, body = (ROOT / "examples" / "attack_a_model.py").read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert shown.text == body
