"""Importing a user's own code by its path: `mypkg.net:build`, from the plan's folder."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from titer.core.errors import SpecError, nearest

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_imported: set[str] = set()
"""Top-level modules that came from a plan's folder in this process: the next plan may bring its own of that name."""


def check_import_path(path: str, where: str) -> None:
    """Refuse what is not of the form `module:callable`."""
    if not _FORM.fullmatch(path):
        raise SpecError(f"{where} = {path!r} is not an import path: allowed is module:callable, as in mypkg.net:build")


def import_factory(path: str, folder: Path, where: str) -> Callable[..., Any]:
    """Return the callable at `path`; its module is sought in `folder`, the current directory, then as installed.

    Raises:
        SpecError: no such module, one that fails, no such attribute, or one that cannot be called.
    """
    check_import_path(path, where)
    module_name, _, attributes = path.partition(":")
    found: Any = _import(module_name, [str(folder.resolve()), str(Path.cwd())], f"{where} = {path!r}")
    for name in attributes.split("."):
        if not hasattr(found, name):
            raise SpecError(f"{where} = {path!r}: {module_name} has no {name!r}{nearest(name, dir(found))}")
        found = getattr(found, name)
    if not callable(found):
        raise SpecError(f"{where} = {path!r} is a {type(found).__name__}: allowed is a callable that returns a network")
    factory: Callable[..., Any] = found
    return factory


def source_digest(factory: Callable[..., Any]) -> str:
    """Return the sha256 of the file that the factory is written in; empty where there is none."""
    try:
        file = inspect.getsourcefile(factory)
    except TypeError:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""


def _import(name: str, roots: list[str], what: str) -> Any:
    top = name.partition(".")[0]
    importlib.invalidate_caches()
    local = PathFinder.find_spec(top, roots)
    if local is not None:
        _make_way(top, local, what)
    try:
        with _in_front(roots):
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        lacking = f"no module {error.name!r}" if error.name else str(error)
        raise SpecError(f"{what}: {lacking} in the plan's folder, the current directory or as installed") from None
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SpecError(f"{what}: importing {name} failed: {type(error).__name__}: {reason}") from None
    if local is not None:
        _imported.add(top)
    return module


def _make_way(top: str, local: ModuleSpec, what: str) -> None:
    """Forget a module of this name that an earlier plan brought; refuse to replace any other."""
    known = sys.modules.get(top)
    if known is None or _places(getattr(known, "__spec__", None)) == _places(local):
        return
    if top not in _imported:
        raise SpecError(f"{what}: a module {top!r} is loaded already, and it is not the plan's: give it another name")
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]


def _places(spec: ModuleSpec | None) -> list[str]:
    if spec is None:
        return []
    return sorted(str(Path(place).resolve()) for place in spec.submodule_search_locations or [spec.origin or ""])


@contextmanager
def _in_front(roots: list[str]) -> Iterator[None]:
    """Put directories first on the import path, for a moment."""
    before = list(sys.path)
    sys.path[:0] = roots
    try:
        yield
    finally:
        sys.path[:] = before
