"""The dashboard, the switches of layers, and the threat level."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from titer.core.errors import SpecError
from titer.guard.judge import layers
from titer.guard.judge.layers import level_of, level_set, set_level
from titer.guard.settings import LAYERS, Layer, ThreatLevel
from titer.guard.web import drawings, trends, upkeep
from titer.guard.web.access import who
from titer.guard.web.site import Site

SPANS = {"1h": ("last hour", 3600.0), "24h": ("last 24 hours", 86400.0), "7d": ("last 7 days", 7 * 86400.0)}
SPANS["30d"] = ("last 30 days", 30 * 86400.0)
LEVELS: dict[ThreatLevel, str] = {
    "normal": "Past its budget a route sheds explanations, past four times it detectors look at a sample.",
    "raised": "Detectors look at every image whatever it takes; explanations go past four times the budget.",
    "high": "As raised, and every result of a model is held for review.",
}
Span = Literal["1h", "24h", "7d", "30d"]


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made, context = APIRouter(tags=["dashboard"]), site.context

    @made.get("/dashboard", dependencies=site.gate("dashboard.read"), response_class=HTMLResponse)
    def dashboard(request: Request, span: Annotated[Span, Query()] = "24h") -> Response:
        """Show traffic, verdicts, alert load, latency, drift, the outbox and the layers."""
        return _shown(site, request, span)

    @made.post("/switches", dependencies=site.gate("switches.write"), response_class=HTMLResponse)
    def switch(
        request: Request,
        route: Annotated[str, Form(max_length=64)],
        layer: Annotated[Layer, Form()],
        on: Annotated[Literal["on", "off", "default"], Form()],
    ) -> Response:
        """Switch a layer of a route on or off, or back to the settings."""
        wanted = None if on == "default" else on == "on"
        try:
            layers.switch(context, route, layer, on=wanted, account=who(request).name)
        except SpecError as error:
            return _shown(site, request, "24h", str(error), 400)
        return RedirectResponse("/dashboard", 303)

    @made.post("/threat-level", dependencies=site.gate("switches.write"), response_class=HTMLResponse)
    def threat_level(request: Request, level: Annotated[ThreatLevel | Literal["default"], Form()]) -> Response:
        """Set the threat level, or go back to that of the settings."""
        set_level(context, None if level == "default" else level, account=who(request).name)
        return RedirectResponse("/dashboard", 303)

    return made


def _shown(site: Site, request: Request, span: Span, wrong: str = "", status: int = 200) -> Response:
    now, (said, seconds) = site.context.clock(), SPANS[span]
    with site.context.engine.connect() as connection:
        found = trends.numbers(connection, trends.Stretch(start=now - seconds, end=now))
        set_ = trends.layers(connection)
        kept = upkeep.upkeep(connection, site.context)
        alerts, alarms = upkeep.alerts(connection, now - seconds)
        level, leveled = level_of(connection, site.context.settings), level_set(connection)
    ends = (f"{span} ago", "now")
    latency = {"median": found.latency_p50, "99th percentile": found.latency_p99}
    charts = {
        "traffic": drawings.columns({"objects": found.traffic}, f"objects received, {said}", ends),
        "outcomes": drawings.columns(found.outcomes, f"verdicts by outcome, {said}", ends),
        "latency": drawings.lines(latency, f"seconds from the last object to the verdict, {said}", ends),
        "drift": drawings.lines(found.drift, f"detector scores over their thresholds, {said}", ends, limit=1.0),
    }
    return site.page(
        request, "dashboard.html.j2", status, found=found, charts=charts, span=span, spans=SPANS, said=said, set=set_,
        layers=LAYERS, routes=site.context.settings.routes, parts=_parts(site), wrong=wrong,
        latency=latency, kept=kept, spool=site.context.settings.spool, alerts=alerts, alarms=alarms,
        level=level, leveled=leveled, levels=LEVELS,
        outcomes={name: int(sum(values)) for name, values in found.outcomes.items()},
    )  # fmt: skip


def _parts(site: Site) -> list[tuple[str, str | None]]:
    return [(part.name, part.trouble()) for part in site.context.parts]
