"""Every snippet of the documentation runs, or at least parses."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer
from typer.testing import CliRunner

from tests.docs.pages import Block, as_toml, blocks, page_name, pages, prose
from titer.assess.plan import parse_plan
from titer.cli.main import app

LANGUAGES = {"python", "toml", "console", "json", "", "text"}
COMMANDS = typer.main.get_command(app)
_INLINE = re.compile(r"`(titer [^`\n]+)`")

every_page = pytest.mark.parametrize("page", pages(), ids=page_name)


@every_page
def test_python_blocks_run_and_saved_plans_are_assessed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = [block for block in blocks(page) if block.language == "python" or block.saved]
    monkeypatch.chdir(tmp_path)
    module = ModuleType("documentation_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in runnable:
        if block.saved:
            Path(block.saved).write_text(block.text)
        if block.language == "python":
            _run(block, page, module)
        else:
            _assess(block)


def _run(block: Block, page: Path, module: ModuleType) -> None:
    padding = "\n" * block.line  # a traceback then names the line of the page
    exec(compile(padding + block.text, str(page), "exec"), module.__dict__)


def _assess(block: Block) -> None:
    assert block.language == "toml"
    assert block.saved
    done = CliRunner().invoke(app, ["assess", block.saved, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = Path("runs") / as_toml(block.text)["name"] / "report.html"
    assert report.is_file()


@every_page
def test_other_toml_blocks_parse(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml" and not block.saved:
            table = as_toml(block.text)
            if {"name", "data", "models", "attacks", "threats"} <= set(table):
                parse_plan(table, block.text.encode(), page.parent)


@every_page
def test_blocks_are_of_a_known_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page_name(page)}, line {block.line}"
        if block.language == "console":
            assert all(line.startswith("$ ") for line in block.text.splitlines()), block.text


@every_page
def test_commands_parse(page: Path) -> None:
    for block in blocks(page):
        if block.language == "console":
            for line in block.text.splitlines():
                _parse(line.removeprefix("$ "), whole=True)
    for command in _INLINE.findall(prose(page)):
        _parse(command, whole=False)


def _parse(line: str, *, whole: bool) -> None:
    """Parse a command as the command line does; an inline mention need not name every argument."""
    words = shlex.split(line)
    if words[0] != "titer" or "COMMAND" in words:
        return
    command: click.Command = COMMANDS
    rest = words[1:]
    parent: click.Context | None = None
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        parent = click.Context(command, info_name=command.name, parent=parent)
        found = command.get_command(parent, rest[0])
        assert found is not None, f"{line}: no command {rest[0]!r}"
        command, rest = found, rest[1:]
    try:
        command.make_context("titer", rest, parent=parent)
    except click.exceptions.Exit:
        pass  # --version and --help print and leave
    except click.MissingParameter:
        assert not whole, f"{line}: an argument is missing"
    except click.exceptions.NoArgsIsHelpError:
        assert not whole, f"{line}: a command is missing"
