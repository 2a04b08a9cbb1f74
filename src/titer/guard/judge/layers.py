"""Layers of a route: what its settings say for the threat level, what was switched, what load takes off."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from titer.core.errors import unknown
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.records import Finding, Outcome
from titer.guard.settings import LAYERS, THREAT_LEVELS, GuardSettings, Layer, RouteSettings, ThreatLevel
from titer.guard.store.tables import switches, threat_level

_PATIENCE: dict[ThreatLevel, tuple[float, float]] = {
    "normal": (1.0, 4.0),
    "raised": (4.0, math.inf),
    "high": (4.0, math.inf),
}
"""How many budgets a question may wait before explanations are shed, and before detectors sample."""
_RULE = "threat-level"
_ROW = 1
_SAID = {True: "on", False: "off", None: "default"}


class Load(IntEnum):
    """What the guard can afford: first explanations go, then detectors look at a sample alone."""

    NORMAL = 0
    NO_EXPLANATIONS = 1
    SAMPLING = 2


def load_of(delay: float, budget_ms: int, level: ThreatLevel = "normal") -> Load:
    """Return what can be afforded where a question waits for `delay` seconds and may take `budget_ms`.

    Past the budget no explanations are made ahead of being asked for; past four times it detectors sample. Above the
    normal threat level explanations go past four times the budget, and detectors look at every image whatever it takes.
    """
    share = 1000 * delay / budget_ms
    shed, sample = _PATIENCE[level]
    return Load.SAMPLING if share > sample else Load.NO_EXPLANATIONS if share > shed else Load.NORMAL


def level_set(connection: Connection) -> Row[Any] | None:
    """Return the threat level that an administrator set: level, account, at; None where the settings say it."""
    return connection.execute(select(threat_level)).first()


def level_of(connection: Connection, settings: GuardSettings) -> ThreatLevel:
    """Return the threat level now; a word that is none, as only a changed database holds, counts as high."""
    row = level_set(connection)
    if row is None:
        return settings.threat_level
    return next((one for one in THREAT_LEVELS if one == row.level), "high")


def layers_of(connection: Connection, route: RouteSettings, level: ThreatLevel = "normal") -> frozenset[Layer]:
    """Return the layers of a route that are on now: those of the threat level, and what was switched since."""
    on = set(route.layers_at(level))
    for row in connection.execute(select(switches).where(switches.c.route == route.name)):
        (on.add if row.on else on.discard)(row.layer)
    return frozenset(on)


def noted(route: RouteSettings, on: frozenset[Layer], level: ThreatLevel = "normal") -> list[Finding]:
    """Return a finding for each layer that is off, and one for a threat level that is not normal.

    So every verdict says what was not done for it, and under which level it was made; at `high` that finding is FLAG
    where a model is asked: every result waits for a person.
    """
    off = [
        Finding(
            rule="layer-off",
            outcome=Outcome.PASS,
            reason=f"the layer {layer} is switched off for route {route.name}",
            evidence={"layer": layer, "route": route.name},
        )
        for layer in LAYERS
        if layer not in on
    ]
    held = level == "high" and route.model is not None and "model" in on
    return off if level == "normal" else [*off, _said(level, held=held)]


def _said(level: ThreatLevel, *, held: bool) -> Finding:
    reason = f"judged at threat level {level}" + (": every result is held for review" if held else "")
    outcome = Outcome.FLAG if held else Outcome.PASS
    return Finding(rule=_RULE, outcome=outcome, reason=reason, evidence={"level": level})


def set_level(context: Context, level: str | None, *, account: str) -> None:
    """Set the guard's threat level at run time, None for that of the settings; to lower it raises an alert.

    Raises:
        SpecError: no threat level.
    """
    after = context.settings.threat_level if level is None else _known(level)
    at = context.clock()

    def step(connection: Connection) -> None:
        before = level_of(connection, context.settings)
        connection.execute(delete(threat_level))
        if level is not None:
            connection.execute(insert(threat_level).values(id=_ROW, level=after, account=account, at=at))
        lowered = THREAT_LEVELS.index(after) < THREAT_LEVELS.index(before)
        detail = {"what": "threat level set", "from": before, "to": after}
        kind = Kind.SECURITY_ALERT if lowered else Kind.APPLICATION
        chain.append(connection, audit_event(kind, action="U", agent=account, at=at, detail=detail), at)

    context.journal.write(step)


def _known(level: str) -> ThreatLevel:
    for one in THREAT_LEVELS:
        if one == level:
            return one
    raise unknown("threat level", level, THREAT_LEVELS)


def switch(context: Context, route: str, layer: str, *, on: bool | None, account: str) -> None:
    """Switch a layer of a route at run time, None for what the settings say; audited, and off is an alert.

    Raises:
        SpecError: an unknown route or layer.
    """
    names = [one.name for one in context.settings.routes]
    if route not in names:
        raise unknown("route", route, names)
    if layer not in LAYERS:
        raise unknown("layer", layer, LAYERS)
    at = context.clock()
    detail = {"what": "layer switched", "route": route, "layer": layer, "to": _SAID[on]}
    kind = Kind.SECURITY_ALERT if on is False else Kind.APPLICATION

    def step(connection: Connection) -> None:
        connection.execute(delete(switches).where(switches.c.route == route, switches.c.layer == layer))
        if on is not None:
            connection.execute(insert(switches).values(route=route, layer=layer, on=on, account=account, at=at))
        chain.append(connection, audit_event(kind, action="U", agent=account, at=at, detail=detail), at)

    context.journal.write(step)
