"""T2: everything that is checked of a series, and what its device's baseline learns from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection

from titer.guard.checks import device, instance, mixed, order, outliers, texture
from titer.guard.checks.limits import NO_LIMITS, Limits
from titer.guard.checks.loaded import Unreadable, load, quiet
from titer.guard.checks.past import NoPast, Past, count
from titer.guard.checks.rule import Rule, applied, habits
from titer.guard.checks.volume import Series, series_of
from titer.guard.keys import pseudonym
from titer.guard.records import Finding

RULES: tuple[Rule[Series], ...] = (*order.RULES, *mixed.RULES, *outliers.RULES, *texture.RULES)
_SAMPLE = 16


def check_series(
    paths: Sequence[Path], past: Past, rules: tuple[Rule[Series], ...] = RULES, limits: Limits = NO_LIMITS
) -> list[Finding]:
    """Return what is wrong with a series as a whole, nothing where all is well; its objects passed T1 one by one.

    Args:
        paths: the files of all its objects, in any order.
        past: what the guard saw before; `NoPast` outside a guard.
        rules: those to apply.
        limits: how long it may take, looked at between rules.

    Raises:
        OSError: a file cannot be read from disk.
    """
    if not paths:
        return []
    late = limits.clock(limits.series_seconds)
    try:
        series = series_of(paths)
    except Unreadable as error:
        return [instance.unreadable(error)]
    with quiet():
        return applied(rules, series, _device(series, past), past, late)


def learning(identity: bytes, paths: Sequence[Path]) -> Callable[[Connection], None]:
    """Read a series that passed, or that a reviewer accepted, and return what adds it to what is usual for its device.

    Files are read here, and the step that is returned only counts: no other write waits for a file. Once a series, and
    never for one that is held: what an attacker sends must not become usual.

    Args:
        identity: the secret of keyed digests.
        paths: the files of the series.
    """
    device_key, values = observed(identity, paths)
    return lambda connection: count(connection, device_key, values)


def observed(identity: bytes, paths: Sequence[Path]) -> tuple[str, set[tuple[str, str]]]:
    """Return a series' device and what its baseline may learn: values, habits, the direction of instance numbers.

    At most 16 of its objects, spread over it, are looked at; a series with a malformed value teaches nothing.
    """
    try:
        series = series_of(paths)
        key, values = series.device(_Keyed(identity)), {pair for path in _spread(paths) for pair in _of_object(path)}
    except Exception:  # noqa: BLE001 - malformed values make pydicom raise a dozen kinds of error
        return "", set()
    with quiet():
        values |= habits(applied((*order.RULES, *mixed.RULES), series, "", NoPast()))
        way = order.direction(series)
    return key, values | ({(order.DIRECTION, way)} if way else set())


def _of_object(path: Path) -> set[tuple[str, str]]:
    one = load(path)
    with quiet():
        own = set(device.values(one))
    return own | habits(instance.check_loaded(one, NoPast()))


def _spread(paths: Sequence[Path]) -> list[Path]:
    step = max(1, -(-len(paths) // _SAMPLE))
    return list(sorted(paths)[::step])


def _device(series: Series, past: Past) -> str:
    try:
        return series.device(past)
    except Exception:  # noqa: BLE001 - a malformed name makes pydicom raise; such a device has no habits
        return past.keyed("device", "malformed")


class _Keyed(NoPast):
    """Gives keyed digests under the guard's own key."""

    def __init__(self, identity: bytes) -> None:
        self._identity = identity

    def keyed(self, *parts: str) -> str:
        return pseudonym(self._identity, *parts)
