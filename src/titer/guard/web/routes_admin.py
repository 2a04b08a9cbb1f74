"""Accounts and tokens, for administrators; and the audit browser, for auditors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from sqlalchemy import func, select

from titer.core.errors import SpecError
from titer.guard.audit.events import Kind
from titer.guard.store.tables import accounts as table
from titer.guard.store.tables import audit, sessions, tokens
from titer.guard.web import accounts, passwords
from titer.guard.web.access import who
from titer.guard.web.roles import PEOPLE, ROLES
from titer.guard.web.site import Site

Name = Annotated[str, Form(max_length=64)]
DAY = 86400.0
_PAGE = 100
_ROWS = Annotated[int, Query(ge=0, le=2**62)]
Change = Literal["disable", "enable", "unlock", "remove second factor", "new password", "end sessions"]


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made = APIRouter(tags=["administration"])
    _accounts(made, site)
    _tokens(made, site)
    _audit(made, site)
    return made


def _accounts(made: APIRouter, site: Site) -> None:
    @made.get("/accounts", dependencies=site.gate("accounts.manage"), response_class=HTMLResponse)
    def accounts_page(request: Request) -> Response:
        """List the accounts."""
        return _shown(site, request)

    @made.post("/accounts", dependencies=site.gate("accounts.manage"), response_class=HTMLResponse)
    def create(request: Request, name: Name, role: Name) -> Response:
        """Make an account; its first password is random and shown once."""
        first = passwords.new_token() if role in PEOPLE else None
        encoded = passwords.hashed(first) if first else None  # before the transaction: it takes long
        return _tried(
            site, request, f"account {name} made",
            lambda c, at: accounts.create(c, name, role, encoded, by=who(request).name, at=at),
            secret=first or "",
        )  # fmt: skip

    @made.post("/accounts/change", dependencies=site.gate("accounts.manage"), response_class=HTMLResponse)
    def change(request: Request, name: Name, what: Annotated[Change, Form()]) -> Response:
        """Disable, enable or unlock an account, remove its second factor, or give it a new password."""
        me = who(request).name
        if name == me and what != "end sessions":
            return _shown(site, request, wrong="nobody changes an account of their own here", status=400)
        if what == "new password":
            return _renewed(site, request, name)
        values: dict[Change, dict[str, Any]] = {
            "disable": {"disabled": True},
            "enable": {"disabled": False},
            "unlock": {"failures": 0, "locked_until": None},
            "remove second factor": {"totp": None},
            "end sessions": {},
        }
        return _tried(
            site, request, f"{name}: {what} done",
            lambda c, at: accounts.change(c, name, f"account: {what}", by=me, at=at, **values[what]),
        )  # fmt: skip


def _renewed(site: Site, request: Request, name: str) -> Response:
    first = passwords.new_token()
    encoded = passwords.hashed(first)  # before the transaction: it takes long
    return _tried(
        site, request, f"{name}: new password done",
        lambda c, at: accounts.renew(c, name, encoded, by=who(request).name, at=at), secret=first,
    )  # fmt: skip


def _tokens(made: APIRouter, site: Site) -> None:
    @made.post("/tokens", dependencies=site.gate("accounts.manage"), response_class=HTMLResponse)
    def issue(request: Request, name: Name, label: Name, days: Annotated[int, Form(ge=1, le=730)] = 90) -> Response:
        """Issue a token to a service account; it is shown once."""
        at, me = site.context.clock(), who(request).name
        try:
            token = site.context.journal.write(
                lambda c: accounts.issue(c, name, label, by=me, at=at, lifetime=days * DAY)
            )
        except SpecError as error:
            return _shown(site, request, wrong=str(error), status=400)
        return _shown(site, request, said=f"token {label} of {name} made", secret=token)

    @made.post("/tokens/revoke", dependencies=site.gate("accounts.manage"), response_class=HTMLResponse)
    def revoke(request: Request, name: Name, label: Name) -> Response:
        """Revoke the tokens of an account that have a label."""
        return _tried(
            site, request, f"token {label} of {name} revoked",
            lambda c, at: accounts.revoke(c, name, label, by=who(request).name, at=at),
        )  # fmt: skip


def _tried(site: Site, request: Request, said: str, write: Any, secret: str = "") -> Response:
    at = site.context.clock()
    try:
        site.context.journal.write(lambda connection: write(connection, at))
    except SpecError as error:
        return _shown(site, request, wrong=str(error), status=400)
    return _shown(site, request, said=said, secret=secret)


def _shown(
    site: Site, request: Request, *, said: str = "", wrong: str = "", secret: str = "", status: int = 200
) -> Response:
    with site.context.engine.connect() as connection:
        people = connection.execute(select(table).order_by(table.c.name)).all()
        counted = connection.execute(select(sessions.c.account, func.count()).group_by(sessions.c.account)).all()
        counts = {str(row.account): int(row[1]) for row in counted}
        given = connection.execute(select(tokens).order_by(tokens.c.account, tokens.c.label)).all()
    return site.page(
        request, "accounts.html.j2", status, people=people, sessions=counts, tokens=given, roles=ROLES, said=said,
        wrong=wrong, secret=secret, local=accounts.local,
    )  # fmt: skip


def _audit(made: APIRouter, site: Site) -> None:
    context = site.context

    @made.get("/audit", dependencies=site.gate("audit.read"), response_class=HTMLResponse)
    def browse(request: Request, before: _ROWS = 0, code: Annotated[str, Query(max_length=10)] = "") -> Response:
        """Show rows of the audit chain, the newest first."""
        query = select(audit).order_by(audit.c.seq.desc()).limit(_PAGE)
        query = query.where(audit.c.seq < before) if before else query
        query = query.where(audit.c.event.contains(f'"code":"{code}"', autoescape=True)) if code else query
        site.note(request, Kind.AUDIT_LOG_USED, "R", {}, {"what": "audit browser", "before": str(before)})
        with context.engine.connect() as connection:
            rows = [(row.seq, row.at, row.digest, json.loads(row.event)) for row in connection.execute(query)]
        kinds = sorted({kind.value for kind in Kind})
        return site.page(request, "audit.html.j2", rows=rows, kinds=kinds, code=code, full=len(rows) == _PAGE)

    @made.get(
        "/audit/export",
        dependencies=site.gate("audit.read"),
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {}}, "description": "One row of the chain a line"}},
    )
    def export(request: Request, start: _ROWS = 1, end: _ROWS = 2**62) -> Response:
        """Export rows of the audit chain as NDJSON: number, time, digest, and the FHIR AuditEvent."""
        site.note(request, Kind.AUDIT_LOG_USED, "R", {}, {"what": "audit export", "start": str(start), "end": str(end)})
        headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"'}
        return StreamingResponse(_lines(site, start, end), media_type="application/x-ndjson", headers=headers)


def _lines(site: Site, start: int, end: int) -> Iterator[str]:
    """Yield rows in pages, so that no transaction stays open as long as a slow reader takes."""
    at = start
    while True:
        query = select(audit).where(audit.c.seq >= at, audit.c.seq <= end).order_by(audit.c.seq).limit(1000)
        with site.context.engine.connect() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            line = {"seq": row.seq, "at": row.at, "digest": row.digest, "event": json.loads(row.event)}
            yield json.dumps(line, ensure_ascii=False) + "\n"
        if len(rows) < 1000:
            return
        at = rows[-1].seq + 1
