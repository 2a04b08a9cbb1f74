"""T1: everything that is checked of one object by itself and against the past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from titer.guard.checks import device, geometry, grey, header, identity, payload, sides, signatures
from titer.guard.checks.limits import NO_LIMITS, Limits
from titer.guard.checks.loaded import Loaded, Unreadable, load, quiet
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Rule, applied
from titer.guard.records import Finding, Outcome

_CONTENT: tuple[Rule[Loaded], ...] = (
    *header.RULES,
    *geometry.RULES,
    *payload.RULES,
    *sides.RULES,
    *identity.RULES,
    *grey.RULES,
    *device.RULES,
)
RULES: tuple[Rule[Loaded], ...] = (*_CONTENT, *signatures.RULES)
READABLE = "readable"


def check_instance(path: Path, past: Past, limits: Limits = NO_LIMITS) -> list[Finding]:
    """Return what is wrong with an object, nothing where all is well; never raises for what the file holds.

    Args:
        path: a DICOM file (PS3.10) as it came in.
        past: what the guard saw before; `NoPast` outside a guard.
        limits: whose signatures count, and how long it may take. The time is looked at between rules: one rule, or the
            reading of the file, is not broken off.

    Raises:
        OSError: the file cannot be read from disk.
    """
    late = limits.clock(limits.object_seconds)
    try:
        one = load(path)
    except Unreadable as error:
        return [unreadable(error)]
    return check_loaded(one, past, (*_CONTENT, *signatures.rules(limits.authorities)), late)


def check_loaded(
    one: Loaded, past: Past, rules: tuple[Rule[Loaded], ...] = RULES, late: Callable[[], bool] = lambda: False
) -> list[Finding]:
    """Return what rules find in an object that was read, and which of them there was no time for."""
    with quiet():
        return applied(rules, one, _device(one, past), past, late)


def unreadable(error: Unreadable) -> Finding:
    """Return the finding of a file that cannot be read."""
    return Finding(rule=READABLE, outcome=Outcome.BLOCK, reason=str(error), threats=("NISTAML.022",))


def _device(one: Loaded, past: Past) -> str:
    try:
        return one.device(past)
    except Exception:  # noqa: BLE001 - a malformed name makes pydicom raise; such a device has no habits
        return past.keyed("device", "malformed")
