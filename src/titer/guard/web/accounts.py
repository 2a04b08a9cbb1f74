"""Accounts: made, changed, and told apart at login; every step an audit row in the same transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from titer.core.errors import SpecError, TiterError, unknown
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context
from titer.guard.store.tables import accounts, sessions, tokens
from titer.guard.web import passwords
from titer.guard.web.roles import PEOPLE, ROLES, SERVICE

TRIES = 5
"""Failures in a row that lock an account."""
_FIRST_LOCK, _LONGEST_LOCK = 30.0, 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}")
FEDERATED = "oidc:"
"""Begins the name of an account that an identity provider vouches for: it never meets a local one."""


class Refused(TiterError):  # noqa: N818 - says what happened
    """A login is refused; the message is the same for every reason that an attacker could learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a person gives to be let in; `address` is where the request came from."""

    name: str
    password: str
    code: str = ""
    address: str | None = None


def create(
    connection: Connection,
    name: str,
    role: str,
    encoded: str | None,
    *,
    by: str,
    at: float,
    temporary: bool = True,
    federated: bool = False,
) -> None:
    """Make an account in the caller's transaction.

    Args:
        encoded: its hashed password (`passwords.hashed`), made outside of the transaction as it takes long; None for a
            service or a federated account.
        temporary: whether its owner has to change the password at the first login, as who made it knows it.
        federated: whether an identity provider vouches for it: these names alone begin with `FEDERATED`.

    Raises:
        SpecError: a name or role that is not allowed, or an account that exists.
    """
    if not _NAME.fullmatch(name):
        raise SpecError(f"account = {name!r}: allowed are 1 to 64 letters, digits and . _ @ : -")
    if name.startswith(FEDERATED) and not federated:
        raise SpecError(f"account = {name!r}: names that begin with {FEDERATED!r} are those of the identity provider")
    if role not in ROLES:
        raise unknown("role", role, ROLES)
    if encoded is not None and role not in PEOPLE:
        raise SpecError(f"role = {role!r} has tokens, no password")
    if connection.execute(select(accounts.c.name).where(accounts.c.name == name)).first():
        raise SpecError(f"account = {name!r} exists")
    row = {"name": name, "role": role, "password": encoded, "must_change": encoded is not None and temporary}
    connection.execute(insert(accounts).values(**row, failures=0, disabled=False, created_at=at))
    note(connection, "account created", by=by, about=name, at=at, detail={"role": role})


def change(connection: Connection, name: str, what: str, *, by: str, at: float, **values: Any) -> None:
    """Change columns of an account, end its sessions, and note `what` was done; SpecError where there is none."""
    given = {"name": name, **values}  # an UPDATE needs a column, where only the sessions end
    if connection.execute(update(accounts).where(accounts.c.name == name).values(**given)).rowcount != 1:
        raise SpecError(f"account = {name!r} is not known")
    connection.execute(delete(sessions).where(sessions.c.account == name))
    note(connection, what, by=by, about=name, at=at)


def local(name: str, password: str | None) -> bool:
    """Whether an account has a password here to be reset: that of a person, and not an identity provider's."""
    return password is not None and not name.startswith(FEDERATED)


def renew(connection: Connection, name: str, encoded: str, *, by: str, at: float, **values: Any) -> None:
    """Give an account another first password (hashed), end its sessions, and note it.

    Raises:
        SpecError: an account that is not known, or has no password here: one that logs in by OIDC, or a service.
    """
    row = connection.execute(select(accounts.c.password).where(accounts.c.name == name)).first()
    if row is not None and not local(name, row.password):
        why = "logs in by OIDC" if name.startswith(FEDERATED) else "is a service"
        raise SpecError(f"account = {name!r} {why} and has no password: allowed are accounts of people made here")
    values = {"password": encoded, "must_change": True, **values}
    change(connection, name, "account: new password", by=by, at=at, **values)


def enter(context: Context, given: Login) -> tuple[str, str]:
    """Check a login and return name and role, once its audit row is durable.

    The password is checked before the transaction, which would hold up every other write for as long.

    Raises:
        Refused: anything is wrong; the audit row says what.
    """
    with context.engine.connect() as connection:
        encoded = connection.execute(select(accounts.c.password).where(accounts.c.name == given.name)).scalar()
    right = passwords.verified(encoded, given.password)
    now = context.clock()
    entered = context.journal.write(
        lambda connection: _entered(connection, given, encoded if right else None, context.identity, now)
    )
    if entered is None:
        raise Refused("name, password or code is wrong, or the account is locked")
    return entered


def _entered(
    connection: Connection, given: Login, proven: str | None, identity: bytes, at: float
) -> tuple[str, str] | None:
    """Decide on a login whose password matched the hash `proven`; None where it is refused, and noted as such."""
    row = connection.execute(select(accounts).where(accounts.c.name == given.name).with_for_update()).first()
    if row is None or row.disabled or (row.locked_until or 0) > at:
        why = "unknown account" if row is None else "disabled" if row.disabled else "locked"
        _login(connection, given, at, why=why)
        return None
    step = _second_factor(row, given.code, identity, at)
    if proven is None or proven != row.password or step is None:
        _fail(connection, row, given, at, "wrong code" if proven else "wrong password")
        return None
    values = {"failures": 0, "locked_until": None, "totp_step": max(step, row.totp_step or 0)}
    connection.execute(update(accounts).where(accounts.c.name == row.name).values(**values))
    _login(connection, given, at, why=None)
    return str(row.name), str(row.role)


def enter_federated(connection: Connection, subject: str, role: str, *, address: str | None, at: float) -> str | None:
    """Let in whom an identity provider vouches for; returns the account's name, None where it is disabled."""
    name = f"{FEDERATED}{subject}"
    row = connection.execute(select(accounts).where(accounts.c.name == name)).first()
    given = Login(name=name, password="", address=address)
    if row is None:
        create(connection, name, role, None, by="identity provider", at=at, federated=True)
    elif row.disabled:
        _login(connection, given, at, why="disabled")
        return None
    elif row.role != role:
        connection.execute(update(accounts).where(accounts.c.name == name).values(role=role))
        note(connection, "role changed", by="identity provider", about=name, at=at, detail={"role": role})
    _login(connection, given, at, why=None)
    return name


def issue(connection: Connection, name: str, label: str, *, by: str, at: float, lifetime: float) -> str:
    """Make a token of a service account; it is shown once, and only its digest is kept."""
    role = connection.execute(select(accounts.c.role).where(accounts.c.name == name)).scalar_one_or_none()
    if role != SERVICE:
        raise SpecError(f"account = {name!r}: only accounts of role {SERVICE!r} have tokens")
    token = passwords.new_token()
    row = {"token": passwords.digest(token), "account": name, "label": label, "created_at": at}
    connection.execute(insert(tokens).values(**row, expires_at=at + lifetime))
    note(connection, "token issued", by=by, about=name, at=at, detail={"label": label})
    return token


def revoke(connection: Connection, name: str, label: str, *, by: str, at: float) -> None:
    """Delete the tokens of an account that have a label; SpecError where there is none."""
    gone = connection.execute(delete(tokens).where(tokens.c.account == name, tokens.c.label == label)).rowcount
    if not gone:
        raise SpecError(f"token = {label!r} of {name!r} is not known")
    note(connection, "token revoked", by=by, about=name, at=at, detail={"label": label})


def note(
    connection: Connection, what: str, *, by: str, about: str, at: float, detail: dict[str, str] | None = None
) -> None:
    """Add an audit row about an account."""
    event = audit_event(
        Kind.APPLICATION, action="U", agent=by, at=at, what={"account": about}, detail={"what": what, **(detail or {})}
    )
    chain.append(connection, event, at)


def _second_factor(row: Any, code: str, identity: bytes, at: float) -> int | None:
    """Return the time step that a right code used up, 0 where none is asked for, None where it is wrong."""
    if row.totp is None:
        return 0
    return passwords.totp_step(passwords.opened(identity, row.totp), code, at, row.totp_step or 0)


def _fail(connection: Connection, row: Any, given: Login, at: float, why: str) -> None:
    """Count a failure; from the fifth on the account is locked, each time twice as long."""
    failures = row.failures + 1
    locked = None
    if failures >= TRIES:
        locked = at + min(_FIRST_LOCK * 2 ** min(failures - TRIES, 20), _LONGEST_LOCK)
    connection.execute(
        update(accounts).where(accounts.c.name == row.name).values(failures=failures, locked_until=locked)
    )
    _login(connection, given, at, why=why, alarm=locked is not None)


def _login(connection: Connection, given: Login, at: float, *, why: str | None, alarm: bool = False) -> None:
    """Note a login; a name that no account has is not kept, as people type passwords there."""
    agent = "unknown" if why == "unknown account" else given.name
    detail = {"what": "login"} if why is None else {"what": "login refused", "why": why}
    result = Result.SUCCESS if why is None else Result.MINOR_FAILURE
    kind = Kind.SECURITY_ALERT if alarm else Kind.USER_AUTHENTICATION
    event = audit_event(kind, action="E", agent=agent, at=at, result=result, detail=detail, network=given.address)
    chain.append(connection, event, at)
