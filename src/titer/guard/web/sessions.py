"""Sessions of people and tokens of services: what a request proves about who sent it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.store.tables import accounts, sessions, tokens
from titer.guard.web import passwords
from titer.guard.web.roles import BROKEN_GLASS, allowed

LONGEST_SECONDS = 12 * 3600.0
"""A session ends after a working day, used or not."""
GLASS_SECONDS = 30 * 60.0
"""An emergency's rights end after half an hour."""
_SEEN_EVERY = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who sent a request. `session` is the digest of the cookie, None of a service's token; `csrf` the session's."""

    name: str
    role: str
    session: str | None = None
    csrf: str = ""
    emergency: str | None = None
    must_change: bool = False
    """Whether the password was chosen by another person: nothing else is open before it is changed."""

    def may(self, permission: str) -> bool:
        """Whether this account has a permission now."""
        return allowed(permission, self.role, emergency=self.emergency is not None)

    @property
    def acting(self) -> str:
        """The role in which it decides on cases."""
        return BROKEN_GLASS if self.emergency else self.role


def begin(connection: Connection, name: str, role: str, at: float) -> str:
    """Start a session in the caller's transaction, and return its cookie: a new one at each login (no fixation)."""
    token = passwords.new_token()
    row = {"token": passwords.digest(token), "account": name, "role": role, "csrf": passwords.new_token()}
    connection.execute(insert(sessions).values(**row, created_at=at, seen_at=at))
    return token


def end(connection: Connection, account: Account, at: float) -> None:
    """End a session in the caller's transaction."""
    connection.execute(delete(sessions).where(sessions.c.token == account.session))
    event = audit_event(Kind.USER_AUTHENTICATION, action="E", agent=account.name, at=at, detail={"what": "logout"})
    chain.append(connection, event, at)


def of_cookie(context: Context, cookie: str) -> Account | None:
    """Return whose session it is; None where it is unknown, too old, idle too long, or the account is disabled."""
    now, key = context.clock(), passwords.digest(cookie)
    with context.engine.connect() as connection:
        query = (
            select(sessions, accounts.c.disabled, accounts.c.must_change).join(accounts).where(sessions.c.token == key)
        )
        row = connection.execute(query).first()
    if row is None or row.disabled:
        return None
    idle = context.settings.web.session_minutes * 60
    if now - row.seen_at > idle or now - row.created_at > LONGEST_SECONDS:
        return None
    if now - row.seen_at > min(_SEEN_EVERY, idle / 4):
        seen = update(sessions).where(sessions.c.token == key).values(seen_at=now)
        context.journal.write(lambda connection: connection.execute(seen).rowcount)
    return Account(
        name=row.account, role=row.role, session=key, csrf=row.csrf, emergency=_emergency(row.break_glass, now),
        must_change=row.must_change,
    )  # fmt: skip


def of_token(context: Context, token: str) -> Account | None:
    """Return whose token it is; None where it is unknown, expired, or the account is disabled."""
    query = select(tokens.c.expires_at, accounts).join(accounts).where(tokens.c.token == passwords.digest(token))
    with context.engine.connect() as connection:
        row = connection.execute(query).first()
    if row is None or row.disabled or row.expires_at <= context.clock():
        return None
    return Account(name=row.name, role=row.role)


def break_glass(connection: Connection, account: Account, reason: str, at: float) -> None:
    """Give a session a radiologist's rights for a short time, and raise an alert (45 CFR 164.312(a)(2)(ii))."""
    stored = json.dumps({"reason": reason, "until": at + GLASS_SECONDS})
    connection.execute(update(sessions).where(sessions.c.token == account.session).values(break_glass=stored))
    detail = {"what": "break-glass access", "reason": reason, "minutes": f"{GLASS_SECONDS / 60:.0f}"}
    event = audit_event(Kind.SECURITY_ALERT, action="E", agent=account.name, at=at, detail=detail)
    chain.append(connection, event, at)


def forget(connection: Connection, at: float, idle: float) -> int:
    """Delete the sessions that have ended by time, and return how many."""
    old = (sessions.c.seen_at < at - idle) | (sessions.c.created_at < at - LONGEST_SECONDS)
    return int(connection.execute(delete(sessions).where(old)).rowcount)


def _emergency(stored: Any, now: float) -> str | None:
    if not stored:
        return None
    given = json.loads(stored)
    return str(given["reason"]) if now < given["until"] else None
