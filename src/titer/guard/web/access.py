"""What stands before every route: who asks, whether the role may, the CSRF token, and the rate."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context
from titer.guard.web import sessions
from titer.guard.web.roles import OWN_PASSWORD, PERMISSIONS, PUBLIC
from titer.guard.web.sessions import Account

COOKIE = "titer_session"
CHANGE_FIRST = "/account/password"
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM = "application/x-www-form-urlencoded"

Check = Callable[..., Any]


async def submitted(request: Request) -> str | None:
    """Return the CSRF token of a request: of its header, or of its form."""
    if (given := request.headers.get(CSRF_HEADER)) is not None:
        return given
    if request.method not in _SAFE and request.headers.get("content-type", "").startswith(_FORM):
        field = (await request.form()).get(CSRF_FIELD)
        return field if isinstance(field, str) else None
    return None


class ChangeFirst(HTTPException):
    """The password was chosen by another person: its owner has to choose one first."""

    def __init__(self) -> None:
        super().__init__(403, "change your password first")


def who(request: Request) -> Account:
    """Return the account of a request that passed a `require`."""
    account = request.state.account
    assert isinstance(account, Account)
    return account


def address(request: Request) -> str | None:
    """Return the address that a request came from."""
    return request.client.host if request.client else None


class Gate:
    """Makes the dependency of each route."""

    def __init__(self, context: Context) -> None:
        """Begin with nobody having asked."""
        web = context.settings.web
        self.context = context
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(web.requests_per_minute)
        self._logins = RateLimitItemPerMinute(web.logins_per_minute)

    def require(self, permission: str) -> Check:
        """Return a FastAPI dependency that lets a request pass that has `permission`, and gives its account.

        It answers 401 without a session or token, 403 to a role without the permission, a wrong CSRF token, or a
        password that is not one's own yet, 429 to who asks too often. KeyError where the table of roles does not hold
        the permission.
        """
        PERMISSIONS[permission]  # a misspelt one fails when the app is made, not when it is asked

        def check(request: Request, csrf: Annotated[str | None, Depends(submitted)] = None) -> Account | None:
            _same_site(request)
            account = self._account(request)
            request.state.account = account
            self.limit(account.name if account else f"address {address(request)}")
            if permission == PUBLIC:
                return account
            if account is None:
                raise HTTPException(401, "log in first")
            if account.must_change and permission != OWN_PASSWORD:
                raise ChangeFirst
            if not account.may(permission):
                self._refused(request, account, permission)
                raise HTTPException(403, f"the role {account.role} has no permission {permission}")
            if request.method not in _SAFE and account.session and not _equal(csrf, account.csrf):
                self._refused(request, account, "CSRF token")
                raise HTTPException(403, "the CSRF token is missing or wrong: load the page again")
            return account

        check.permission = permission  # type: ignore[attr-defined]  # a test walks the routes and reads it
        return check

    def __call__(self, permission: str) -> list[Any]:
        """Return `require` as a route takes it."""
        return [Depends(self.require(permission))]

    def limit(self, key: str, *, login: bool = False) -> None:
        """Count a request; HTTPException 429 where the minute's are used up."""
        item = self._logins if login else self._requests
        if not self._limiter.hit(item, "login" if login else "request", key):
            raise HTTPException(429, "too many requests: wait a minute", headers={"Retry-After": "60"})

    def _account(self, request: Request) -> Account | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self.limit(f"address {address(request)}")
            account = sessions.of_token(self.context, token.strip())
            if account is None:
                self._alarm(request, "unknown", "token refused", "")
                raise HTTPException(401, "the token is wrong or has expired")
            return account
        cookie = request.cookies.get(COOKIE)
        return sessions.of_cookie(self.context, cookie) if cookie else None

    def _refused(self, request: Request, account: Account, lacking: str) -> None:
        self._alarm(request, account.name, "access refused", lacking)

    def _alarm(self, request: Request, agent: str, what: str, lacking: str) -> None:
        at, route = self.context.clock(), request.scope.get("route")
        detail = {"what": what, "route": getattr(route, "path", ""), "lacking": lacking}
        event = audit_event(
            Kind.SECURITY_ALERT, action="E", agent=agent, at=at, result=Result.MINOR_FAILURE, detail=detail,
            network=address(request),
        )  # fmt: skip
        self.context.journal.write(lambda connection: chain.append(connection, event, at))


def _equal(given: str | None, wanted: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), wanted.encode())


def _same_site(request: Request) -> None:
    """Refuse a change that another site's page sends, login included, where there is no session's token yet."""
    if request.method in _SAFE:
        return
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "requests of other sites are refused")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise HTTPException(403, "requests of other sites are refused")
