"""Health, metrics, the description of the interface, and the files of the pages' design."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from titer.guard.store.tables import audit_head
from titer.guard.web.access import who
from titer.guard.web.routes_login import FIRST_PAGES
from titer.guard.web.site import FOLDER, Site

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made, gate = APIRouter(tags=["operation"]), site.gate
    files = {path.name: path.read_bytes() for path in (FOLDER / "static").iterdir() if path.suffix in _TYPES}

    @made.get("/", dependencies=gate("self"))
    def home(request: Request) -> Response:
        """Go to the first page of the role."""
        return RedirectResponse(FIRST_PAGES.get(who(request).acting, "/queue"), 303)

    @made.get("/static/{name}", dependencies=gate("public"), response_class=Response)
    def file(name: Annotated[str, Path(max_length=40)]) -> Response:
        """Return a file of the pages' design."""
        if name not in files:
            raise HTTPException(404, "there is no such file")
        kind = _TYPES["." + name.rsplit(".", 1)[1]]
        return Response(files[name], media_type=kind, headers={"Cache-Control": "private, max-age=300"})

    @made.get("/health/live", dependencies=gate("public"))
    def live() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "alive"}

    @made.get(
        "/health/ready",
        dependencies=gate("public"),
        responses={503: {"description": "a component or the database does not work"}},
    )
    def ready(request: Request) -> JSONResponse:
        """Say whether every component works; what keeps one from it is told to who is logged in."""
        known = request.state.account is not None
        found = _troubles(site)
        shown = {name: (said if known else "not working") if said else "works" for name, said in found.items()}
        bad = any(found.values())
        return JSONResponse({"status": "not ready" if bad else "ready", "components": shown}, 503 if bad else 200)

    @made.get(
        "/metrics",
        dependencies=gate("metrics.read"),
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format"}},
    )
    def metrics() -> Response:
        """Return the metrics, for Prometheus."""
        return Response(site.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @made.get("/api/openapi.json", dependencies=gate("api.describe"))
    def description(request: Request) -> dict[str, Any]:
        """Return the OpenAPI document of this very application."""
        described: dict[str, Any] = request.app.openapi()
        return described

    return made


def _troubles(site: Site) -> dict[str, str | None]:
    found: dict[str, str | None] = {part.name: part.trouble() for part in site.context.parts}
    try:
        with site.context.engine.connect() as connection:
            connection.execute(select(audit_head.c.seq)).first()
        found["database"] = None
    except SQLAlchemyError as error:
        found["database"] = f"the database does not answer ({type(error).__name__})"
    return found
