"""The outbox: what waits for each destination, what was given up and why, and sending it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from titer.guard.deliver import watch
from titer.guard.web.access import who
from titer.guard.web.site import Site

KINDS = {
    "object": "image",
    "structured-report": "structured report",
    "capture": "secondary capture",
    "diagnostic-report": "diagnostic report",
    "task": "task",
    "event": "webhook",
}
Number = Annotated[int, Path(ge=1, le=2**62)]
_SHOWN = 100


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made, context = APIRouter(tags=["outbox"]), site.context

    @made.get("/outbox", dependencies=site.gate("outbox.read"), response_class=HTMLResponse)
    def outbox(request: Request, destination: Annotated[str, Query(max_length=64)] = "") -> Response:
        """Show destinations, and items that were given up or withheld; of one destination where it is named."""
        return _shown(site, request, destination)

    @made.post("/outbox/again", dependencies=site.gate("outbox.retry"), response_class=HTMLResponse)
    def all_again(request: Request, destination: Annotated[str, Form(max_length=64)]) -> Response:
        """Send everything again that was given up for a destination."""
        if not watch.retry_all(context, destination, account=who(request).name):
            return _shown(site, request, "", f"Nothing that can be sent again is given up for {destination}.", 409)
        return RedirectResponse("/outbox", 303)

    @made.post("/outbox/{item}/again", dependencies=site.gate("outbox.retry"), response_class=HTMLResponse)
    def again(request: Request, item: Number) -> Response:
        """Send an item again that was given up or withheld."""
        if not watch.retry(context, item, account=who(request).name):
            return _shown(
                site,
                request,
                "",
                f"Item {item} is neither given up nor withheld for a destination of the settings.",
                409,
            )
        return RedirectResponse("/outbox", 303)

    return made


def _shown(site: Site, request: Request, destination: str, wrong: str = "", status: int = 200) -> Response:
    with site.context.engine.connect() as connection:
        backlogs = watch.backlogs(connection)
        stuck = watch.stuck(connection, _SHOWN, destination or None)
    mine = [one for one in backlogs if destination in ("", one.destination)]
    return site.page(
        request, "outbox.html.j2", status, backlogs=backlogs, stuck=stuck, chosen=destination, wrong=wrong,
        kinds=KINDS, total=sum(one.dead + one.withheld for one in mine),
        known=[one.name for one in site.context.settings.destinations],
    )  # fmt: skip
