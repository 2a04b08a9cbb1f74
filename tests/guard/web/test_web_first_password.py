"""The first password: whoever gets one that another person chose has to change it before anything else is open."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from tests.guard.web import seed
from tests.guard.web.conftest import csrf

from titer.guard.operate import people
from titer.guard.store.tables import accounts as table
from titer.guard.store.tables import tokens

NEW = "a password of my own choice"
HTML = {"Accept": "text/html"}


def login(client: TestClient, name: str, password: str) -> None:
    assert client.post("/login", data={"name": name, "password": password}).status_code == 303


def changed(context, client: TestClient, name: str, old: str = seed.PASSWORD, new: str = NEW):
    return client.post("/account/password", data={"old": old, "new": new, "csrf": csrf(context, name)})


@pytest.fixture
def fresh(context, anyone):
    """An administrator at the first login, as `titer guard init` makes one."""
    people.add(context, "ada", "admin", seed.PASSWORD)
    login(anyone, "ada", seed.PASSWORD)
    return anyone


def test_at_the_first_login_every_page_leads_to_the_choice_of_a_password(fresh) -> None:
    for path in ("/", "/dashboard", "/accounts", "/account", "/break-glass", "/metrics"):
        answer = fresh.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, "/account/password"), path
    page = fresh.get("/account/password", headers=HTML)
    assert page.status_code == 200
    assert "<nav" not in page.text, "no way leads elsewhere"


def test_before_the_change_nothing_can_be_changed_and_no_token_be_made(context, fresh) -> None:
    people_before = {"name": "scanner", "role": "service"}
    given = {"csrf": csrf(context, "ada")}
    assert fresh.post("/accounts", data={**people_before, **given}).status_code == 403
    assert fresh.post("/tokens", data={"name": "ada", "label": "x", **given}).status_code == 403
    assert fresh.post("/switches", data={"route": "all", "layer": "model", "on": "off", **given}).status_code == 403
    assert fresh.get("/dashboard").json() == {"detail": "change your password first"}
    with context.engine.connect() as connection:
        assert list(connection.execute(select(table.c.name)).scalars()) == ["ada"]
        assert connection.execute(select(tokens)).first() is None


def test_after_the_change_the_pages_are_open_and_the_old_password_and_session_are_not(context, fresh) -> None:
    before = dict(fresh.cookies)
    answer = changed(context, fresh, "ada")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
    assert dict(fresh.cookies) != before
    assert fresh.get("/dashboard").status_code == 200
    assert fresh.get("/account/password").headers["location"] == "/account"
    assert fresh.post("/login", data={"name": "ada", "password": seed.PASSWORD}).status_code == 401
    fresh.cookies.clear()
    fresh.cookies.update(before)
    assert fresh.get("/dashboard").status_code == 401


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("wrong", NEW, "old password is wrong"),
        (seed.PASSWORD, seed.PASSWORD, "choose another"),
        (seed.PASSWORD, "short", "12 to 256"),
    ],
)
def test_a_change_that_is_none_leaves_everything_shut(context, fresh, old, new, said) -> None:
    answer = changed(context, fresh, "ada", old, new)
    assert answer.status_code == 400
    assert said in answer.text
    assert fresh.get("/dashboard").status_code == 403


def test_without_the_csrf_token_the_first_password_stays(fresh) -> None:
    assert fresh.post("/account/password", data={"old": seed.PASSWORD, "new": NEW}).status_code == 403


def test_who_does_not_change_may_leave(context, fresh) -> None:
    assert fresh.post("/logout", data={"csrf": csrf(context, "ada")}).headers["location"] == "/login"
    assert fresh.get("/account/password").status_code == 401


def test_an_account_or_password_that_an_admin_makes_has_to_be_changed(context, client, anyone) -> None:
    admin = client("admin")
    first = admin.post("/accounts", data={"name": "ines", "role": "radiologist"}).text
    login(anyone, "ines", first.split('class="key">')[1].split("<")[0])
    assert anyone.get("/queue").status_code == 403
    seed.person(context, "anna", "radiologist")
    page = admin.post("/accounts/change", data={"name": "anna", "what": "new password"}).text
    assert "first password" in page
    login(anyone, "anna", page.split('class="key">')[1].split("<")[0])
    assert anyone.get("/queue").status_code == 403


def test_a_reset_from_the_command_line_ends_sessions_and_unlocks(context, anyone, events) -> None:
    seed.person(context, "anna", "radiologist")
    for _ in range(5):
        anyone.post("/login", data={"name": "anna", "password": "wrong"})
    people.reset(context, "anna", "another first password")
    login(anyone, "anna", "another first password")
    assert anyone.get("/queue").status_code == 403
    assert changed(context, anyone, "anna", "another first password").status_code == 303
    assert anyone.get("/queue").status_code == 200
    assert {"type": "what", "valueString": "account: new password"} in [
        detail for event in events() for entity in event.get("entity", []) for detail in entity.get("detail", [])
    ]
