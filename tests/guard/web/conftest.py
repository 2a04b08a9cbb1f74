"""The guard's pages: an application, clients of every role, and a real server for the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.guard.web import seed

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.web.access import COOKIE
from titer.guard.web.app import make_app
from titer.guard.web.roles import ROLES


@dataclass
class Decisions:
    """Stands in the judge's place: keeps what it is asked, and refuses where it is told to."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    refusal: str = ""

    def __call__(self, _context: Context, *given: Any) -> None:
        if self.refusal:
            raise SpecError(self.refusal)
        self.asked.append(given)


@pytest.fixture
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def app(context: Context, decisions: Decisions) -> FastAPI:
    def no_heatmap(*_: Any) -> Any:
        raise SpecError("this case has no model")

    return make_app(context, decide=decisions, heatmap=no_heatmap)


@pytest.fixture
def anyone(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(app: FastAPI, context: Context) -> Iterator[Callable[[str], TestClient]]:
    """Make a client of a role: people with a session and its CSRF token, services with a bearer token."""
    made: dict[str, TestClient] = {}

    def of(role: str) -> TestClient:
        assert role in ROLES
        if role in made:
            return made[role]
        seed.person(context, f"one-{role}", role)
        one = TestClient(app, follow_redirects=False)
        if role == "service":
            one.headers["Authorization"] = f"Bearer {seed.token(context, f'one-{role}')}"
        else:
            one.cookies.set(COOKIE, seed.cookie(context, f"one-{role}", role))
            one.headers["X-CSRF-Token"] = csrf(context, f"one-{role}")
        made[role] = one
        return one

    yield of
    for one in made.values():
        one.close()


def csrf(context: Context, name: str) -> str:
    from sqlalchemy import select

    from titer.guard.store.tables import sessions

    with context.engine.connect() as connection:
        return str(
            connection.execute(
                select(sessions.c.csrf).where(sessions.c.account == name).order_by(sessions.c.created_at.desc())
            ).scalars().first()
        )  # fmt: skip


@pytest.fixture
def events(context: Context) -> Callable[[], list[dict[str, Any]]]:
    """Return the audit events so far."""
    import json

    from sqlalchemy import select

    from titer.guard.store.tables import audit

    def read() -> list[dict[str, Any]]:
        with context.engine.connect() as connection:
            return [
                json.loads(one) for one in connection.execute(select(audit.c.event).order_by(audit.c.seq)).scalars()
            ]

    return read
