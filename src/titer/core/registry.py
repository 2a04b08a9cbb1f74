"""Shelves of plugins: found by walking the package, then the entry points `titer.<shelf>`.

A plugin is a keyword-only factory. Its settings are its signature: names, types, defaults and limits are read from
there, so that a plan is checked before anything runs and `titer plugins` never disagrees with the code.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from titer.core.errors import ContractError, SpecError, nearest, unknown
from titer.core.needs import Needs

Spec = str | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a plugin: its name, its type as shown to the user, and its default (`...` when required)."""

    name: str
    kind: str
    default: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A registered factory with what a report says of it.

    `paper` cites the source with its equation; `threat_ids` are NIST AI 100-2e2025 and MITRE ATLAS ids; `traits` hold
    what the harness must know (`minimal`: a least-perturbation attack that ignores eps); `needs` is what an attack
    cannot do without.
    """

    name: str
    shelf: str
    factory: Callable[..., Any]
    title: str
    paper: str = ""
    threat_ids: tuple[str, ...] = ()
    traits: frozenset[str] = frozenset()
    needs: Needs | None = None

    def settings(self) -> tuple[Setting, ...]:
        """Return the plugin's settings in the order of its signature."""
        hints = typing.get_type_hints(self.factory, include_extras=True)
        return tuple(
            Setting(
                name=name,
                kind=_kind(hints.get(name, Any)),
                default=... if parameter.default is inspect.Parameter.empty else parameter.default,
            )
            for name, parameter in inspect.signature(self.factory).parameters.items()
        )

    def check(self, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the settings, defaults filled in and types checked; raise SpecError naming every bad one."""
        from pydantic import ConfigDict, ValidationError, create_model

        hints = typing.get_type_hints(self.factory, include_extras=True)
        fields: dict[str, Any] = {s.name: (hints.get(s.name, Any), s.default) for s in self.settings()}
        model = create_model("Settings", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
        try:
            checked = model(**dict(settings))
        except ValidationError as error:
            raise SpecError("; ".join(explain(where, e, tuple(fields)) for e in error.errors())) from None
        return {name: getattr(checked, name) for name in fields}


UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def explain(where: str, error: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    """Turn one pydantic error into Titer's form: setting, value, what is allowed."""
    path = ".".join(str(part) for part in error["loc"])
    name = f"{where}.{path}" if where and path else (where or path)
    if error["type"] in UNKNOWN_KEY:
        last = str(error["loc"][-1])
        listed = ", ".join(allowed) or "no settings"
        return f"{name} = {error['input']!r} is not a known key: allowed are {listed}{nearest(last, allowed)}"
    if error["type"] == "missing":
        return f"{name} is missing: it is required"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} = {error['input']!r} is not allowed: {message}"


def _kind(hint: Any) -> str:
    """Return a hint as a user reads it: `Annotated[int, ...]` as `int`."""
    hint = _bare(hint)
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _bare(hint: Any) -> Any:
    """Return a hint without its annotations, also those inside a tuple."""
    if typing.get_origin(hint) is typing.Annotated:
        return _bare(typing.get_args(hint)[0])
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple[tuple(_bare(one) for one in inner)]  # type: ignore[misc]
    return hint


@dataclass(slots=True)
class Shelf:
    """All plugins of one kind; filled on first use."""

    name: str
    _plugins: dict[str, Plugin] = field(default_factory=dict)
    _walked: bool = False

    def add(self, plugin: Plugin) -> None:
        """Put a plugin on the shelf; two plugins of one name are a ContractError."""
        known = self._plugins.get(plugin.name)
        if known is not None and known.factory.__module__ != plugin.factory.__module__:
            raise ContractError(
                f"two plugins of the shelf {self.name!r} are called {plugin.name!r}: "
                f"{known.factory.__module__} and {plugin.factory.__module__}"
            )
        self._plugins[plugin.name] = plugin

    def all(self) -> dict[str, Plugin]:
        """Return every plugin by name, in alphabetical order."""
        if not self._walked:
            self._walk()
        return dict(sorted(self._plugins.items()))

    def get(self, name: str, where: str) -> Plugin:
        """Return one plugin; SpecError naming the nearest match for a misspelt name."""
        plugins = self.all()
        if name not in plugins:
            raise unknown(where, name, plugins)
        return plugins[name]

    def _walk(self) -> None:
        package = importlib.import_module(f"titer.{self.name}")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"titer.{self.name}.{module.name}")
        for entry in entry_points(group=f"titer.{self.name}"):
            entry.load()
        self._walked = True


_NAMES = (
    "attacks", "poisons", "cleaners", "tampers", "defenses", "certifiers", "detectors", "explainers", "modalities",
    "networks", "estimators",
)  # fmt: skip
SHELVES: dict[str, Shelf] = {name: Shelf(name) for name in _NAMES}


def parse(spec: Spec, where: str) -> tuple[str, dict[str, Any]]:
    """Split a spec (`"pgd"` or `{name = "pgd", steps = 40}`) into name and settings."""
    if isinstance(spec, str):
        return spec, {}
    if "name" not in spec or not isinstance(spec["name"], str):
        raise SpecError(f"{where} = {dict(spec)!r} is not allowed: a plugin is a name or a table with the key 'name'")
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}
