"""Login, logout, one's own account, and access in an emergency."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from titer.core.errors import SpecError, TiterError
from titer.guard.audit.events import Kind
from titer.guard.store.tables import accounts as table
from titer.guard.web import accounts, passwords, qr, sessions
from titer.guard.web.access import CHANGE_FIRST, COOKIE, address, who
from titer.guard.web.oidc import NotVouched, Provider, checked
from titer.guard.web.roles import OWN_PASSWORD
from titer.guard.web.site import Site

STATE = "titer_oidc"
Text = Annotated[str, Form(max_length=300)]
Empty = Annotated[str, Form(max_length=300)]
_MOST = 1000
FIRST_PAGES = {"admin": "/dashboard", "auditor": "/audit"}


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made, gate = APIRouter(tags=["login"], default_response_class=HTMLResponse), site.gate
    _password(made, site)
    _own(made, site)
    if site.context.settings.web.oidc:
        _federated(made, site, Provider(checked(site.context.settings.web.oidc)))

    @made.post("/logout", dependencies=gate(OWN_PASSWORD))
    def logout(request: Request) -> Response:
        """End the session."""
        account, at = who(request), site.context.clock()
        site.context.journal.write(lambda connection: sessions.end(connection, account, at))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    return made


def _password(made: APIRouter, site: Site) -> None:
    @made.get("/login", dependencies=site.gate("public"))
    def login_page(request: Request) -> Response:
        """Show the login."""
        return site.page(request, "login.html.j2", wrong="")

    @made.post("/login", dependencies=site.gate("public"))
    def login(request: Request, name: Text, password: Text, code: Empty = "") -> Response:
        """Log in with name, password and, where it is set up, the code of an authenticator."""
        where = address(request)
        for key in (f"name {name}", f"address {where}"):
            site.gate.limit(key, login=True)
        try:
            given = accounts.Login(name=name, password=password, code=code, address=where)
            account, role = accounts.enter(site.context, given)
        except accounts.Refused as refused:
            site.measures.logins.labels("refused").inc()
            return site.page(request, "login.html.j2", 401, wrong=str(refused))
        site.measures.logins.labels("password").inc()
        return _started(site, account, role, RedirectResponse(FIRST_PAGES.get(role, "/queue"), 303))


def _own(made: APIRouter, site: Site) -> None:
    """One's own account. A second factor waits in memory until its first code proves that it was taken over."""
    pending: dict[str, str] = {}
    lock = threading.Lock()

    def shown(request: Request, said: str = "", status: int = 200, secret: str = "") -> Response:
        with site.context.engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.name == who(request).name)).one()
        link = passwords.totp_address(secret, row.name) if secret else ""
        return site.page(
            request, "account.html.j2", status, said=said, secret=secret, code=qr.drawn(link) if link else "",
            local=row.password is not None, factor=bool(row.totp),
        )  # fmt: skip

    @made.get("/account", dependencies=site.gate("self"))
    def account_page(request: Request) -> Response:
        """Show one's own account."""
        return shown(request)

    @made.post("/account/totp", dependencies=site.gate("self"))
    def enrol(request: Request, code: Empty = "") -> Response:
        """Begin to set up a second factor, or finish with its first code."""
        me, at = who(request), site.context.clock()
        key = me.session or ""
        with lock:
            if len(pending) > _MOST:
                pending.clear()
            secret = pending.setdefault(key, passwords.new_totp())
        if not code:
            return shown(request, secret=secret)
        step = passwords.totp_step(secret, code, at)
        if step is None:
            return shown(request, "this code is wrong", 400, secret)
        sealed = passwords.sealed(site.context.identity, secret)

        def write(connection: Any) -> None:
            values = table.update().where(table.c.name == me.name).values(totp=sealed, totp_step=step)
            connection.execute(values)
            accounts.note(connection, "second factor set up", by=me.name, about=me.name, at=at)

        site.context.journal.write(write)
        with lock:
            pending.pop(key, None)
        return shown(request, "the second factor is set up")

    _change_password(made, site, shown)
    _glass(made, site)


def _change_password(made: APIRouter, site: Site, shown: Callable[..., Response]) -> None:
    def refused(request: Request, said: str) -> Response:
        return _first_page(site, request, said) if who(request).must_change else shown(request, said, 400)

    @made.get(CHANGE_FIRST, dependencies=site.gate(OWN_PASSWORD))
    def first_password_page(request: Request) -> Response:
        """Ask for a password of one's own, before anything else is open."""
        return _first_page(site, request) if who(request).must_change else RedirectResponse("/account", 303)

    @made.post(CHANGE_FIRST, dependencies=site.gate(OWN_PASSWORD))
    def password(request: Request, old: Text, new: Text) -> Response:
        """Change one's own password; every session of the account ends, and a first one goes on in a new one."""
        me, at = who(request), site.context.clock()
        site.gate.limit(f"name {me.name}", login=True)
        with site.context.engine.connect() as connection:
            encoded = connection.execute(select(table.c.password).where(table.c.name == me.name)).scalar()
        if not passwords.verified(encoded, old):
            return refused(request, "the old password is wrong")
        if new == old:
            return refused(request, "the new password is the old one: choose another")
        try:
            values = {"password": passwords.hashed(new), "must_change": False}
        except SpecError as error:
            return refused(request, str(error))
        site.context.journal.write(
            lambda connection: accounts.change(connection, me.name, "password changed", by=me.name, at=at, **values)
        )
        if not me.must_change:
            return RedirectResponse("/login", 303)
        return _started(site, me.name, me.role, RedirectResponse(FIRST_PAGES.get(me.role, "/queue"), 303))


def _first_page(site: Site, request: Request, wrong: str = "") -> Response:
    return site.page(request, "password.html.j2", 400 if wrong else 200, wrong=wrong, shortest=passwords.SHORTEST)


def _glass(made: APIRouter, site: Site) -> None:
    @made.get("/break-glass", dependencies=site.gate("break-glass"))
    def glass_page(request: Request) -> Response:
        """Show what access in an emergency means."""
        return site.page(request, "glass.html.j2", wrong="", minutes=int(sessions.GLASS_SECONDS / 60))

    @made.post("/break-glass", dependencies=site.gate("break-glass"))
    def glass(request: Request, reason: Text) -> Response:
        """Take a radiologist's rights for half an hour; the reason goes into an alert."""
        me, at, words = who(request), site.context.clock(), reason.strip()
        if len(words) < 10:
            return site.page(
                request, "glass.html.j2", 400, wrong="say why, in 10 characters or more",
                minutes=int(sessions.GLASS_SECONDS / 60),
            )  # fmt: skip
        site.context.journal.write(lambda connection: sessions.break_glass(connection, me, words, at))
        return RedirectResponse("/queue", 303)


def _federated(made: APIRouter, site: Site, provider: Provider) -> None:
    secure = site.context.settings.web.tls is not None

    def callback(request: Request) -> str:
        return str(request.url_for("finish_federated_login"))

    @made.get("/login/oidc", dependencies=site.gate("public"))
    def begin_federated_login(request: Request) -> Response:
        """Go to the identity provider."""
        site.gate.limit(f"address {address(request)}", login=True)
        try:
            target, state = provider.begin(callback(request), site.context.clock())
        except TiterError as error:
            return site.page(request, "login.html.j2", 502, wrong=str(error))
        answer = RedirectResponse(target, 303)
        # Lax: the provider's redirect back is another site's navigation, and Strict cookies do not come with it.
        answer.set_cookie(STATE, state, max_age=600, path="/login", httponly=True, samesite="lax", secure=secure)
        return answer

    @made.get("/login/oidc/done", dependencies=site.gate("public"))
    def finish_federated_login(
        request: Request,
        state: Annotated[str, Query(max_length=200)] = "",
        code: Annotated[str, Query(max_length=4000)] = "",
    ) -> Response:
        """Take the identity provider's answer."""
        at, where = site.context.clock(), address(request)
        try:
            if not state or request.cookies.get(STATE) != state:
                raise NotVouched("this login was not begun in this browser")
            vouched = provider.finish(callback(request), state, code, at)
            name = site.context.journal.write(
                lambda connection: accounts.enter_federated(
                    connection, vouched.subject, vouched.role, address=where, at=at
                )
            )
            if name is None:
                raise NotVouched("this account is disabled")
        except TiterError as error:
            site.measures.logins.labels("refused").inc()
            site.note(request, Kind.USER_AUTHENTICATION, "E", {}, {"what": "login refused", "why": str(error)})
            return site.page(request, "login.html.j2", 401, wrong=str(error))
        site.measures.logins.labels("oidc").inc()
        # A page and no redirect: the session's cookie is Strict, and would not come with a redirect from another site.
        answer = site.page(request, "entered.html.j2", to=FIRST_PAGES.get(vouched.role, "/queue"))
        answer.delete_cookie(STATE, path="/login")
        return _started(site, name, vouched.role, answer)


def _started(site: Site, name: str, role: str, answer: Response) -> Response:
    context, at = site.context, site.context.clock()
    idle = context.settings.web.session_minutes * 60

    def write(connection: Any) -> str:
        sessions.forget(connection, at, idle)
        return sessions.begin(connection, name, role, at)

    token = context.journal.write(write)
    secure = context.settings.web.tls is not None
    answer.set_cookie(COOKIE, token, path="/", httponly=True, samesite="strict", secure=secure)
    return answer
