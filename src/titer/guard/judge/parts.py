"""What the judge is given by the other parts of the guard: checks, the past, and what delivery does with a verdict."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from titer.guard.context import Context
from titer.guard.records import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Functions of other parts.

    `past` is made of a connection and the secret of keyed digests; `learning` reads files
    that passed, and returns the step that adds them to it. `release` (a result, with its heat maps) and
    `announce` queue what follows from a verdict, by its number, in the transaction that writes it; `captures` queues
    heat maps that were made after it.
    """

    check_instance: Callable[[Path, Any], list[Finding]]
    check_series: Callable[[Sequence[Path], Any], list[Finding]]
    past: Callable[[Connection, bytes], Any]
    learning: Callable[[bytes, Sequence[Path]], Callable[[Connection], None]]
    release: Callable[..., Any]
    announce: Callable[[Context, Connection, int], Any]
    captures: Callable[..., Any]


def real(context: Context) -> Parts:
    """Return those of this guard, with what its settings say about checks.

    Raises:
        SpecError: the settings name authorities of signatures that are none.
    """
    limits = _of("checks.limits", "limits_of")(context.home, context.settings.checks)
    return Parts(
        check_instance=partial(_of("checks.instance", "check_instance"), limits=limits),
        check_series=partial(_of("checks.series", "check_series"), limits=limits),
        past=_of("checks.past", "DatabasePast"),
        learning=_of("checks.series", "learning"),
        release=_of("deliver.results", "release"),
        announce=_of("deliver.results", "announce"),
        captures=_of("deliver.results", "captures"),
    )


def _of(module: str, name: str) -> Any:
    """Return a function of the guard; imported by name and late, as readers of DICOM take a second to import."""
    return getattr(importlib.import_module(f"titer.guard.{module}"), name)
