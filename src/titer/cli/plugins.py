"""`titer plugins`: every attack, defence, modality and network with its settings, paper and threat ids."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from titer.core.registry import Plugin


def plugins(
    shelf: Annotated[str | None, typer.Argument(help="One shelf: attacks, defenses, certifiers ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every plugin with its settings and defaults, its paper, and its threat ids."""
    from titer.core.errors import unknown
    from titer.core.registry import SHELVES

    if shelf is not None and shelf not in SHELVES:
        raise unknown("shelf", shelf, SHELVES)
    chosen = [SHELVES[shelf]] if shelf else list(SHELVES.values())
    if as_json:
        typer.echo(json.dumps({one.name: [_record(p) for p in one.all().values()] for one in chosen}, indent=1))
        return
    for one in chosen:
        typer.echo(f"{one.name}:")
        for plugin in one.all().values():
            typer.echo("\n".join(f"  {line}" for line in _lines(plugin)))


def _lines(plugin: Plugin) -> list[str]:
    settings = [f"    {s.name}: {s.kind}{_default(s.default)}" for s in plugin.settings()]
    paper = [f"    paper: {plugin.paper}"] if plugin.paper else []
    threats = [f"    threats: {', '.join(plugin.threat_ids)}"] if plugin.threat_ids else []
    needs = [f"    needs: {plugin.needs.describe()}"] if plugin.needs else []
    proves = [f"    norms: {', '.join(_norms(plugin))}"] if plugin.shelf == "certifiers" else []
    return [f"{plugin.name}  {plugin.title}", *settings, *paper, *threats, *needs, *proves]


def _norms(plugin: Plugin) -> list[str]:
    """Return the norms in which a certifier proves a radius."""
    from titer.core.needs import NORMS

    return [norm for norm in NORMS if norm in plugin.traits]


def _default(value: object) -> str:
    return ", required" if value is ... else f" = {value!r}"


def _record(plugin: Plugin) -> dict[str, object]:
    settings = [
        {
            "name": s.name,
            "type": s.kind,
            "required": s.default is ...,
            "default": None if s.default is ... else s.default,
        }
        for s in plugin.settings()
    ]
    return {
        "name": plugin.name,
        "title": plugin.title,
        "settings": settings,
        "paper": plugin.paper,
        "threat_ids": list(plugin.threat_ids),
        "needs": None if plugin.needs is None else asdict(plugin.needs),
        **({"norms": _norms(plugin)} if plugin.shelf == "certifiers" else {}),
    }
