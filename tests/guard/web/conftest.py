"""The guard's pages: an application, clients of every role, and a real server for the browser."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.guard.web import seed

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.home import Home
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
def home(home: Home) -> Home:
    """Give the guard two destinations, which nothing answers at."""
    dicom = 'kind = "dicom"\naddress = "127.0.0.1:1"\nae_title = "PACS"\n'
    more = "".join(f'\n[[destinations]]\nname = "{name}"\n{dicom}' for name in ("pacs", "archive"))
    home.settings.write_text(home.settings.read_text() + more)
    return home


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


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    """Stands in the judge's place behind the pages of `address`."""
    from tests.guard.web.browsing import Judge

    return Judge(tmp_path)


@pytest.fixture
def address(context: Context, judge: Any) -> Iterator[str]:
    from titer.guard.web.component import Web

    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(context, decide=judge.decide, heatmap=judge.heatmap)
    web = Web(context, app=app, listener=listener)
    context.parts.append(web)
    web.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    web.stop()
    listener.close()


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright
    from tests.guard.web.browsing import CHROMIUM

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def cases(context: Context, titer_data: Path) -> list[int]:
    """A head MR series that is flagged, one that is blocked, and chest X-rays."""
    from tests.guard.web.browsing import seed_pixels

    for name, role in (("anna", "radiologist"), ("bert", "radiologist"), ("ada", "admin")):
        seed.person(context, name, role)
    now = context.clock()
    seed.history(context)
    drift = ("saliency-drift", "FLAG", "The model looks elsewhere than on clean images of this route.")
    squeezed = ("feature-squeezing", "FLAG", "The answer changes when the image is squeezed: 0.89 to 0.21.")
    moved = ("series-order", "BLOCK", "Slice positions are not evenly spaced: one slice was moved or taken out.")
    mr = seed.mr_files(titer_data, 24)
    first = seed.put(context, mr, urgency=9, at=now - 1900, found=[squeezed, drift])
    xray = {"result": {"classes": ["normal", "pneumonia"], "probabilities": [0.31, 0.69], "label": "pneumonia"}}
    rest = [
        seed.put(context, [seed.xray_file(titer_data, i)], urgency=5 - i, at=now - 400 * i, found=[drift], **xray)
        for i in range(1, 4)
    ]
    blocked = seed.image_file(seed_pixels(titer_data), "MR")
    rest.append(seed.put(context, [blocked], urgency=7, at=now - 90, outcome="BLOCK", found=[moved], scores={}))
    return [first, *rest]
