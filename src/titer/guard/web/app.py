"""The application: every route behind the gate, every answer with its security headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from titer.guard.context import Context
from titer.guard.settings import MiB
from titer.guard.store.journal import NotStored
from titer.guard.web import (
    routes_admin,
    routes_cases,
    routes_dashboard,
    routes_login,
    routes_operate,
    routes_outbox,
    routes_receipts,
)  # fmt: skip
from titer.guard.web.access import CHANGE_FIRST, COOKIE, ChangeFirst, Check, Gate
from titer.guard.web.headers import BodyCap, SecurityHeaders
from titer.guard.web.measures import Measures
from titer.guard.web.site import Decide, Heatmap, Site, explained, judged

MakeRouter = Callable[[Context, Callable[[str], Check]], APIRouter]
_ROUTERS = (
    routes_operate.router, routes_login.router, routes_cases.router, routes_dashboard.router, routes_admin.router,
    routes_receipts.router, routes_outbox.router,
)  # fmt: skip
_log = structlog.get_logger("titer.guard.web")


def make_app(
    context: Context, *, decide: Decide = judged, heatmap: Heatmap = explained, others: Sequence[MakeRouter] = ()
) -> FastAPI:
    """Build the application.

    Args:
        context: of the guard.
        decide: decides on a case; `judge.review.decide` in a running guard.
        heatmap: makes a slice's heat map; `judge.explain.heatmap` in a running guard.
        others: routers of other parts, called with the context and the gate's `require`.
    """
    gate = Gate(context)
    site = Site(context=context, gate=gate, measures=Measures(context), decide=decide, heatmap=heatmap)
    # No pages of documentation: they load scripts from elsewhere. The document itself stands behind the gate.
    app = FastAPI(title="Titer guard", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    for router in _ROUTERS:
        app.include_router(router(site))
    for make in others:
        app.include_router(make(context, gate.require))
    _describe(app)
    _errors(app, site)
    _measured(app, site)
    web = context.settings.web
    app.add_middleware(BodyCap, upload=web.max_upload_mib * MiB)
    app.add_middleware(SecurityHeaders, tls=web.tls is not None)
    return app


def _describe(app: FastAPI) -> None:
    """Say in the OpenAPI document how requests prove who sends them."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        document["components"] = document.get("components", {})
        document["components"]["securitySchemes"] = {
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            "token": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"session": []}, {"token": []}]
        return document

    app.openapi = described  # type: ignore[method-assign]


def _errors(app: FastAPI, site: Site) -> None:
    def answer(request: Request, status: int, said: str, headers: dict[str, str] | None = None) -> Response:
        page = "text/html" in request.headers.get("accept", "")
        if page and status == 401 and request.method == "GET":
            return RedirectResponse("/login", 303)
        if not page:
            return JSONResponse({"detail": said}, status, headers)
        shown = site.page(request, "error.html.j2", status, code=status, said=said)
        shown.headers.update(headers or {})
        return shown

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(ChangeFirst)
    def change_first(request: Request, error: ChangeFirst) -> Response:
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(CHANGE_FIRST, 303)
        return answer(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> Response:
        """Name the fields and what is allowed, without what was given: it may be a password or a patient's name."""
        said = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return answer(request, 422, said)

    @app.exception_handler(NotStored)
    def not_stored(request: Request, error: NotStored) -> Response:
        _log.error("the database takes no writes", error=type(error).__name__)
        return answer(request, 503, "the guard cannot store anything at the moment", {"Retry-After": "5"})

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        _log.error("a request failed", error=type(error).__name__, route=_path(request), method=request.method)
        return HTMLResponse("the guard could not answer this request", 500)


def _measured(app: FastAPI, site: Site) -> None:
    @app.middleware("http")
    async def measured(request: Request, call: Callable[[Request], Any]) -> Response:
        began = time.perf_counter()
        response: Response = await call(request)
        path, took = _path(request), time.perf_counter() - began
        site.measures.requests.labels(path, request.method, str(response.status_code)).inc()
        site.measures.seconds.labels(path).observe(took)
        _log.info(
            "request", route=path, method=request.method, status=response.status_code, milliseconds=round(took * 1e3, 1)
        )
        return response


def _path(request: Request) -> str:
    """Return the route's template: an address itself may hold what a person typed."""
    return str(getattr(request.scope.get("route"), "path", "none"))
