"""Accounts and tokens from the command line: the administrator's account at first, others later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.store.tables import accounts as table
from titer.guard.store.tables import tokens
from titer.guard.web import accounts, passwords
from titer.guard.web.roles import SERVICE

BY = "command line"
DAY = 86_400.0


def add(context: Context, name: str, role: str, password: str) -> None:
    """Make an account with a first password, which its owner has to change at the first login.

    Raises:
        SpecError: a name, role or password that is not allowed, or an account that exists.
    """
    encoded = passwords.hashed(password)
    at = context.clock()
    context.journal.write(lambda connection: accounts.create(connection, name, role, encoded, by=BY, at=at))


def reset(context: Context, name: str, password: str) -> None:
    """Give an account another first password, and unlock it; its sessions end.

    Raises:
        SpecError: an account that is not known or has no password (a service, an identity provider's), or a password
            that is not allowed.
    """
    encoded = passwords.hashed(password)
    at = context.clock()

    values = {"failures": 0, "locked_until": None}
    context.journal.write(lambda connection: accounts.renew(connection, name, encoded, by=BY, at=at, **values))


def issue(context: Context, name: str, role: str, label: str, days: int) -> str:
    """Issue a token to a service account, which is made where there is none; the token is to be shown once.

    Raises:
        SpecError: a role that has no tokens, a name that is not allowed, or an account of another role.
    """
    if role != SERVICE:
        raise SpecError(f"role = {role!r} has no tokens: allowed is {SERVICE}")
    at = context.clock()

    def write(connection: Connection) -> str:
        if connection.execute(select(table.c.name).where(table.c.name == name)).first() is None:
            accounts.create(connection, name, SERVICE, None, by=BY, at=at)
        return accounts.issue(connection, name, label, by=BY, at=at, lifetime=days * DAY)

    return context.journal.write(write)


def revoke(context: Context, name: str, label: str) -> None:
    """Revoke the tokens of an account that have a label; SpecError where there is none."""
    at = context.clock()
    context.journal.write(lambda connection: accounts.revoke(connection, name, label, by=BY, at=at))


def issued(context: Context, name: str | None = None) -> Sequence[Any]:
    """Return the tokens of an account, or of all: account, label, created_at, expires_at; never the token itself."""
    query = select(tokens.c.account, tokens.c.label, tokens.c.created_at, tokens.c.expires_at)
    query = query if name is None else query.where(tokens.c.account == name)
    with context.engine.connect() as connection:
        return connection.execute(query.order_by(tokens.c.account, tokens.c.expires_at)).all()
