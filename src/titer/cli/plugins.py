"""`titer plugins`: every attack, defence, modality and network with its settings, paper and threat ids."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def plugins(
    shelf: Annotated[str | None, typer.Argument(help="One shelf: attacks, defenses, modalities, networks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
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
            record = _record(plugin)
            typer.echo(f"  {record['name']}  {record['title']}")
            for setting in record["settings"]:
                typer.echo(f"      {setting['name']}: {setting['type']}{setting['default']}")
            if record["paper"]:
                typer.echo(f"      paper: {record['paper']}")
            if record["threat_ids"]:
                typer.echo(f"      threats: {', '.join(record['threat_ids'])}")


def _record(plugin: object) -> dict[str, object]:
    from titer.core.registry import Plugin

    assert isinstance(plugin, Plugin)
    settings = [
        {"name": s.name, "type": s.kind, "default": ", required" if s.default is ... else f" = {s.default!r}"}
        for s in plugin.settings()
    ]
    return {
        "name": plugin.name,
        "title": plugin.title,
        "settings": settings,
        "paper": plugin.paper,
        "threat_ids": list(plugin.threat_ids),
    }
