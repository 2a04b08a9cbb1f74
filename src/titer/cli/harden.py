"""`titer harden`: train a plan's defences and hand over the weights with what they cost and hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from titer.cli.progress import console_progress


def harden(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder; hardened/<name of the plan> by default.")] = None,
    defense: Annotated[str | None, typer.Option(help="Label of one defence of the plan; all by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Train the plan's defences once; write weights (safetensors), a model card, and the evidence behind it."""
    from titer.assess.grid import count_steps
    from titer.assess.harden import harden as run
    from titer.assess.harden import hardening_plan
    from titer.assess.plan import load_plan
    from titer.report.build import build

    loaded = hardening_plan(load_plan(plan), defense)
    folder = out or Path("hardened") / loaded.name
    with console_progress(count_steps(loaded)) as listener:
        cards = run(loaded, folder, device=device, workers=workers, listener=listener)
    build(folder / "evidence")
    for card in cards:
        typer.echo(f"model card: {card}")
