"""`titer tamper`: attack files, and write them beside a list of what was changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from titer.core.protocols import Tampered

LIST = "changes.json"


def tamper(
    files: Annotated[list[Path], typer.Argument(help="Files, or folders of files; they are not changed.")],
    with_: Annotated[str, typer.Option("--with", help="The tamper; titer plugins tampers lists them.")],
    out: Annotated[Path, typer.Option(help="Folder for the tampered files and changes.json.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    setting: Annotated[list[str] | None, typer.Option("--set", help="A setting, as in TOML: a=1.")] = None,
) -> None:
    """Write tampered copies of files that are valid still, with the list of what was changed."""
    from titer.core.errors import Incompatible, SpecError
    from titer.core.plugins import make_tamper
    from titer.core.randomness import generator

    settings = _settings(setting or [])
    attack = make_tamper({"name": with_, **settings}, "--with")
    content = _read(files, out)
    try:
        done = attack(content, rng=generator(seed, "tamper", with_))
    except Incompatible as reason:
        raise SpecError(f"--with = {with_!r} cannot be done to these files: {reason}") from None
    _write(out, {"tamper": with_, "settings": settings, "seed": seed}, content, done)
    typer.echo(f"{len(done.changed)} change(s): {out / LIST}")


def _settings(given: list[str]) -> dict[str, Any]:
    import tomllib

    from titer.core.errors import SpecError

    settings: dict[str, Any] = {}
    for text in given:
        try:
            settings |= tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            raise SpecError(f"--set = {text!r} is not allowed: allowed is key=value as TOML has it") from None
    return settings


def _read(given: list[Path], out: Path) -> dict[str, bytes]:
    """Return the files' content by name; a folder stands for the files in it."""
    from titer.core.errors import SpecError

    paths = [one for path in given for one in (sorted(path.iterdir()) if path.is_dir() else [path])]
    content: dict[str, bytes] = {}
    for path in paths:
        if path.is_dir() or not path.is_file():
            raise SpecError(f"{str(path)!r}: no such file; allowed are files, and folders of nothing but files")
        if path.name in content:
            raise SpecError(f"{str(path)!r}: another file is called {path.name!r} too; names must differ")
        if path.resolve().parent == out.resolve():
            raise SpecError(f"--out = {str(out)!r} is where {path.name!r} lies: the original would be overwritten")
        content[path.name] = path.read_bytes()
    return content


def _write(out: Path, told: dict[str, Any], before: dict[str, bytes], done: Tampered) -> None:
    """Write every file under a temporary name and then rename it; the list of changes comes last."""
    import hashlib
    import json

    def digest(content: bytes | None) -> str | None:
        return None if content is None else hashlib.sha256(content).hexdigest()

    files = [
        {"name": name, "sha256_before": digest(before.get(name)), "sha256": digest(content)}
        for name, content in done.files.items()
    ]
    listed = json.dumps({**told, "changed": list(done.changed), "files": files}, indent=1, ensure_ascii=False)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {**done.files, LIST: f"{listed}\n".encode()}.items():
        part = out / f".{name}.part"
        part.write_bytes(content)
        part.replace(out / name)
