"""Layers of a route: what its settings say, what an administrator switched since, and what load takes off."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, delete, insert, select

from titer.core.errors import SpecError, unknown
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.records import Finding, Outcome
from titer.guard.settings import LAYERS, Layer, RouteSettings
from titer.guard.store.tables import switches

_SAMPLING = 4.0


class Load(IntEnum):
    """What the guard can afford: first explanations go, then detectors look at a sample alone."""

    NORMAL = 0
    NO_EXPLANATIONS = 1
    SAMPLING = 2


def load_of(delay: float, budget_ms: int) -> Load:
    """Return what can be afforded where a question waits for `delay` seconds and may take `budget_ms`.

    Past the budget no explanations are made ahead of being asked for; past four times the budget detectors sample.
    """
    share = 1000 * delay / budget_ms
    return Load.SAMPLING if share > _SAMPLING else Load.NO_EXPLANATIONS if share > 1 else Load.NORMAL


def layers_of(connection: Connection, route: RouteSettings) -> frozenset[Layer]:
    """Return the layers of a route that are on now."""
    on = set(route.layers)
    for row in connection.execute(select(switches).where(switches.c.route == route.name)):
        (on.add if row.on else on.discard)(row.layer)
    return frozenset(on)


def noted(route: str, on: frozenset[Layer]) -> list[Finding]:
    """Return a finding for each layer that is off, so that every verdict says what was not done for it."""
    return [
        Finding(
            rule="layer-off",
            outcome=Outcome.PASS,
            reason=f"the layer {layer} is switched off for route {route}",
            evidence={"layer": layer, "route": route},
        )
        for layer in LAYERS
        if layer not in on
    ]


def switch(context: Context, route: str, layer: str, *, on: bool, account: str) -> None:
    """Switch a layer of a route at run time; audited.

    Raises:
        SpecError: an unknown route or layer.
    """
    names = [one.name for one in context.settings.routes]
    if route not in names:
        raise unknown("route", route, names)
    if layer not in LAYERS:
        raise SpecError(f"layer = {layer!r} is not known: allowed are {', '.join(LAYERS)}")
    at = context.clock()
    event = audit_event(
        Kind.APPLICATION, action="U", agent=account, at=at, detail={"route": route, "layer": layer, "on": str(on)}
    )

    def step(connection: Connection) -> None:
        connection.execute(delete(switches).where(switches.c.route == route, switches.c.layer == layer))
        connection.execute(insert(switches).values(route=route, layer=layer, on=on, account=account, at=at))
        chain.append(connection, event, at)

    context.journal.write(step)
