"""`titer data`: public data files of the modalities, and signed manifests of a plan's data."""

from __future__ import annotations

from typing import Annotated

import typer

from titer.cli.signing import keys, sign, verify

data = typer.Typer(
    no_args_is_help=True,
    help="List or fetch the modalities' public data files; sign data, and verify what was signed.",
)


@data.command("list")
def list_files() -> None:
    """List every data file: its modality, whether it is on this machine, and its licence."""
    from titer.modalities._files import catalogue, locate

    for modality, files in catalogue().items():
        if not files:
            typer.echo(f"{modality}: needs no download")
        for file in files:
            place = locate(file)
            typer.echo(f"{modality}: {file.place} ({file.licence}): {place or 'absent; titer data fetch ' + modality}")


@data.command()
def fetch(modality: Annotated[str, typer.Argument(help="A modality with data files, such as chest-xray.")]) -> None:
    """Download a modality's data files into the user's cache, where they are nowhere on this machine."""
    from titer.core.errors import unknown
    from titer.modalities._files import catalogue
    from titer.modalities._files import fetch as get

    files = catalogue()
    if modality not in files:
        raise unknown("modality", modality, files)
    if not files[modality]:
        typer.echo(f"{modality}: needs no download")
    for file in files[modality]:
        typer.echo(f"{modality}: {get(file)}")


data.command()(keys)
data.command()(sign)
data.command()(verify)
