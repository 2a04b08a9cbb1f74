"""The reference mentions every key, option, plugin, setting and check that there is, with its default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from pydantic import BaseModel

from tests.docs.pages import REFERENCE, ROOT, anchors, default_text, links, page_name, pages, rows, section
from titer.assess.endpoint import Endpoint
from titer.assess.models import ModelSpec
from titer.assess.plan import DefensePlan, ThreatPlan, _File
from titer.assess.sanity import PROBES
from titer.assess.study_plans import CertificationPlan, DetectionPlan, ExplanationPlan, PoisoningPlan
from titer.assess.surrogate_plan import SurrogatePlan
from titer.cli.main import app
from titer.core.record import Recipe
from titer.core.registry import SHELVES, Plugin

PLAN = REFERENCE / "plan.md"
SOURCES = ROOT / "src" / "titer"
WORDS = {"training"}
"""Keys whose default is told in words."""

TABLES: dict[str, Any] = {
    "The top level": _File,
    "training": Recipe,
    "models": ModelSpec,
    "endpoint": Endpoint,
    "threats": ThreatPlan,
    "defenses": DefensePlan,
    "surrogates": SurrogatePlan,
    "certification": CertificationPlan,
    "detection": DetectionPlan,
    "explanation": ExplanationPlan,
    "poisoning": PoisoningPlan,
}
SHELF_PAGES = {
    "attacks": REFERENCE / "attacks.md",
    "defenses": REFERENCE / "defenses.md",
    "certifiers": REFERENCE / "certifiers.md",
    "detectors": REFERENCE / "detectors.md",
    "explainers": REFERENCE / "explainers.md",
    "poisons": REFERENCE / "poisoning.md",
    "cleaners": REFERENCE / "poisoning.md",
    "modalities": PLAN,
    "tampers": REFERENCE / "tampers.md",
    "networks": PLAN,
    "estimators": PLAN,
}
PLUGINS = [
    plugin
    for shelf in SHELVES.values()
    for plugin in shelf.all().values()
    if plugin.factory.__module__.startswith("titer.")
]


def keys_of(table: Any) -> dict[str, Any]:
    """Return the keys of a plan's table with their defaults, `...` where one is required."""
    if issubclass(table, BaseModel):
        return {name: ... if one.is_required() else one.default for name, one in table.model_fields.items()}
    return {one.name: ... if one.default is dataclasses.MISSING else one.default for one in dataclasses.fields(table)}


def check_row(cells: list[str], name: str, default: Any) -> None:
    """Check the default of one row; a default of None may be told in words, but is never `required`."""
    if name in WORDS:
        return
    if default is None:
        assert cells[1] != "required", name
    else:
        assert cells[1] == default_text(default), f"{name}: the code's default is {default_text(default)}"


@pytest.mark.parametrize("title", TABLES)
def test_plan_keys(title: str) -> None:
    documented, real = rows(section(PLAN, title)), keys_of(TABLES[title])
    assert set(real) <= set(documented), f"undocumented keys: {set(real) - set(documented)}"
    assert set(documented) <= set(real), f"documented keys that do not exist: {set(documented) - set(real)}"
    for name, default in real.items():
        check_row(documented[name], name, default)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: f"{plugin.shelf}-{plugin.name}")
def test_plugin_settings(plugin: Plugin) -> None:
    page = SHELF_PAGES[plugin.shelf]
    text = section(page, plugin.name)
    assert text, f"{page_name(page)} has no heading `{plugin.name}`"
    documented, real = rows(text), {one.name: one.default for one in plugin.settings()}
    assert set(documented) == set(real)
    for name, default in real.items():
        check_row(documented[name], name, default)


@pytest.mark.parametrize("plugin", [p for p in PLUGINS if p.paper], ids=lambda plugin: plugin.name)
def test_plugin_papers(plugin: Plugin) -> None:
    text = section(SHELF_PAGES[plugin.shelf], plugin.name)
    for number in re.findall(r"arXiv:[\d.]+\d", plugin.paper):
        assert number in text or plugin.shelf == "networks", f"{plugin.name}: {number} is not cited"


def commands() -> list[tuple[str, click.Command]]:
    """Return every command under the heading that it stands under: a group's commands share one."""
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    found = []
    for name, command in root.commands.items():
        parts = command.commands.values() if isinstance(command, click.Group) else [command]
        found += [(f"titer {name}", part) for part in parts]
    return found


@pytest.mark.parametrize(("title", "command"), commands(), ids=lambda value: getattr(value, "name", value))
def test_command_options(title: str, command: click.Command) -> None:
    text = section(REFERENCE / "command-line.md", title)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert f"`{parameter.name.upper()}`" in text, f"{title}: {parameter.name}"
        elif "--help" not in parameter.opts:
            assert all(f"`{option}`" in text for option in parameter.opts), f"{title}: {parameter.opts}"


def test_version_is_documented() -> None:
    assert "`titer --version`" in (REFERENCE / "command-line.md").read_text()


def test_exit_statuses() -> None:
    used = set(re.findall(r"_fail\(.*, (\d+)\)", (SOURCES / "cli" / "main.py").read_text())) | {"0"}
    table = section(REFERENCE / "command-line.md", "Exit statuses")
    assert used == set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE))


def test_environment_variables() -> None:
    used = {name for path in SOURCES.rglob("*.py") for name in re.findall(r"\"(TITER_[A-Z]+)\"", path.read_text())}
    assert used == set(rows(section(REFERENCE / "command-line.md", "Environment variables")))


def test_checks() -> None:
    named = re.findall(r'"check": "([a-z0-9-]+)"', (SOURCES / "assess" / "sanity.py").read_text())
    page = REFERENCE / "sanity.md"
    for name in {*PROBES, *named}:
        assert section(page, name), f"sanity.md has no heading {name!r}"


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


def test_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    missing = [page_name(page) for page in sorted((ROOT / "docs").rglob("*.md")) if page not in {*linked, index}]
    assert not missing


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
    assert text.rstrip().endswith("limitations under the License.")
