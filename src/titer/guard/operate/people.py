"""Accounts made from the command line: the administrator's at first, others later."""

from __future__ import annotations

from titer.guard.context import Context
from titer.guard.web import accounts, passwords


def add(context: Context, name: str, role: str, password: str) -> None:
    """Make an account with a password.

    Raises:
        SpecError: a name, role or password that is not allowed, or an account that exists.
    """
    encoded = passwords.hashed(password)
    at = context.clock()
    context.journal.write(lambda connection: accounts.create(connection, name, role, encoded, by="command line", at=at))
