"""Accounts: login, lock-out, second factor, sessions, tokens, CSRF, break-glass, and what is kept of it."""

from __future__ import annotations

import time
from dataclasses import replace

import pyotp
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from tests.guard.web import seed
from tests.guard.web.conftest import csrf

from titer.core.errors import SpecError
from titer.guard.store.tables import accounts as table
from titer.guard.store.tables import sessions as session_table
from titer.guard.web import accounts, passwords, sessions
from titer.guard.web.access import COOKIE
from titer.guard.web.app import make_app
from titer.guard.web.sessions import of_cookie, of_token


class Clock:
    """A clock that a test turns; it starts at the real time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(context, clock):
    return replace(context, clock=clock)


def login(client: TestClient, name: str = "anna", password: str = seed.PASSWORD, code: str = ""):
    return client.post("/login", data={"name": name, "password": password, "code": code})


def test_a_login_starts_a_session_whose_cookie_no_script_and_no_other_site_can_use(context, anyone) -> None:
    seed.person(context, "anna", "radiologist")
    answer = login(anyone)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # this guard has no TLS
    token = anyone.cookies[COOKIE]
    with context.engine.connect() as connection:
        assert connection.execute(select(session_table.c.token)).scalar_one() == passwords.digest(token)
    assert anyone.get("/queue").status_code == 200


def test_each_login_has_a_new_token(context, anyone) -> None:
    seed.person(context, "anna", "radiologist")
    anyone.cookies.set(COOKIE, "chosen by an attacker")
    tokens = {login(anyone).headers["set-cookie"].split(";")[0] for _ in range(2)}
    assert len(tokens) == 2
    assert f"{COOKIE}=chosen by an attacker" not in tokens


def test_wrong_password_unknown_account_and_disabled_account_answer_alike(context, anyone) -> None:
    seed.person(context, "anna", "radiologist")
    seed.person(context, "bert", "radiologist")
    context.journal.write(lambda c: accounts.change(c, "bert", "disabled", by="test", at=0.0, disabled=True))
    answers = [login(anyone, *given) for given in (("anna", "wrong"), ("nobody", "wrong"), ("bert", seed.PASSWORD))]
    assert {one.status_code for one in answers} == {401}
    assert len({one.text for one in answers}) == 1


def test_five_failures_lock_an_account_for_a_time_that_doubles(context, anyone, clock, events) -> None:
    seed.person(context, "anna", "radiologist")
    for _ in range(accounts.TRIES):
        assert login(anyone, password="wrong").status_code == 401
    assert login(anyone).status_code == 401, "the right password does not open a locked account"
    assert any(e["type"]["code"] == "110113" for e in events())
    clock.now += 31
    login(anyone, password="wrong")
    with context.engine.connect() as connection:
        assert connection.execute(select(table.c.locked_until)).scalar_one() == pytest.approx(clock.now + 60)
    clock.now += 61
    assert login(anyone).status_code == 303


def test_what_is_typed_as_a_name_is_not_kept_where_no_account_has_it(anyone, events) -> None:
    login(anyone, name="my secret password")
    assert "my secret password" not in str(events())


def test_a_second_factor_is_asked_for_once_enrolled_and_a_code_serves_once(context, anyone, clock) -> None:
    seed.person(context, "anna", "radiologist")
    login(anyone)
    token = csrf(context, "anna")
    page = anyone.post("/account/totp", data={"csrf": token}).text
    secret = page.split('class="key">')[1].split("<")[0]
    assert anyone.post("/account/totp", data={"csrf": token, "code": "000000"}).status_code == 400
    code = pyotp.TOTP(secret).at(clock.now)
    assert "is set up" in anyone.post("/account/totp", data={"csrf": token, "code": code}).text
    with context.engine.connect() as connection:
        assert secret not in connection.execute(select(table.c.totp)).scalar_one()
    assert login(anyone).status_code == 401
    assert login(anyone, code=code).status_code == 401, "the code of the enrolment was used"
    clock.now += 30
    assert login(anyone, code=pyotp.TOTP(secret).at(clock.now)).status_code == 303


def test_a_session_ends_when_idle_when_old_and_when_its_account_is_disabled(context, clock) -> None:
    seed.person(context, "anna", "radiologist")
    cookie = seed.cookie(context, "anna", "radiologist")
    assert of_cookie(context, cookie).name == "anna"
    clock.now += 29 * 60
    assert of_cookie(context, cookie) is not None
    clock.now += 29 * 60
    assert of_cookie(context, cookie) is not None, "it was used meanwhile"
    clock.now += 31 * 60
    assert of_cookie(context, cookie) is None
    cookie = seed.cookie(context, "anna", "radiologist")
    for _ in range(25):
        clock.now += 29 * 60
        of_cookie(context, cookie)
    assert of_cookie(context, cookie) is None, "no session is longer than a working day"
    cookie = seed.cookie(context, "anna", "radiologist")
    context.journal.write(lambda c: c.execute(update(table).values(disabled=True)).rowcount)
    assert of_cookie(context, cookie) is None


def test_logout_ends_the_session_at_the_server(context, anyone) -> None:
    seed.person(context, "anna", "radiologist")
    login(anyone)
    token = anyone.cookies[COOKIE]
    assert anyone.post("/logout", data={"csrf": csrf(context, "anna")}).headers["location"] == "/login"
    assert of_cookie(context, token) is None


@pytest.mark.parametrize("given", [{}, {"csrf": "wrong"}])
def test_a_change_without_the_csrf_token_is_refused(context, client, given) -> None:
    one = client("admin")
    del one.headers["X-CSRF-Token"]
    assert one.post("/accounts", data={"name": "x", "role": "auditor", **given}).status_code == 403
    right = {"csrf": csrf(context, "one-admin")}
    assert one.post("/accounts", data={"name": "x", "role": "auditor", **right}).status_code == 200


@pytest.mark.parametrize("header", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_login_that_another_site_sends_is_refused(context, anyone, header) -> None:
    seed.person(context, "anna", "radiologist")
    data = {"name": "anna", "password": seed.PASSWORD}
    assert anyone.post("/login", data=data, headers=header).status_code == 403


def test_a_service_token_expires_can_be_revoked_and_is_no_session(context, client, clock) -> None:
    seed.person(context, "scanner", "service")
    admin = client("admin")
    page = admin.post("/tokens", data={"name": "scanner", "label": "ct", "days": "1"}).text
    token = page.split('class="key">')[1].split("<")[0]
    assert of_token(context, token).role == "service"
    clock.now += 86401
    assert of_token(context, token) is None
    clock.now -= 86401
    assert admin.post("/tokens/revoke", data={"name": "scanner", "label": "ct"}).status_code == 200
    assert of_token(context, token) is None
    assert admin.post("/tokens/revoke", data={"name": "scanner", "label": "ct"}).status_code == 400
    assert admin.post("/tokens", data={"name": "one-admin", "label": "x"}).status_code == 400


def test_break_glass_needs_a_reason_raises_an_alert_and_ends(context, client, clock, events) -> None:
    one = client("admin")
    assert one.get("/queue").status_code == 403
    assert one.post("/break-glass", data={"reason": "because"}).status_code == 400
    assert one.post("/break-glass", data={"reason": "stroke, radiologist unreachable"}).status_code == 303
    assert one.get("/queue").status_code == 200
    assert any(e["type"]["code"] == "110113" and "stroke" in str(e) for e in events())
    clock.now += sessions.GLASS_SECONDS + 1
    seen = session_table.update().values(seen_at=clock.now)
    context.journal.write(lambda c: c.execute(seen).rowcount)
    assert one.get("/queue").status_code == 403


def test_too_many_requests_of_one_account_are_answered_429(context) -> None:
    web = context.settings.web.model_copy(update={"requests_per_minute": 5, "logins_per_minute": 2})
    slow = replace(context, settings=context.settings.model_copy(update={"web": web}))
    with TestClient(make_app(slow), follow_redirects=False) as one:
        answers = [one.get("/health/live") for _ in range(6)]
        assert [a.status_code for a in answers] == [200] * 5 + [429]
        assert answers[-1].headers["retry-after"] == "60"
    with TestClient(make_app(slow), follow_redirects=False) as one:
        assert [login(one, "x", "y").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("name", "role", "said"), [("a b", "admin", "account"), ("", "admin", "account"), ("x", "boss", "role")]
)
def test_an_account_that_is_not_allowed_is_refused_with_what_is(context, name, role, said) -> None:
    with pytest.raises(SpecError, match=said):
        context.journal.write(lambda c: accounts.create(c, name, role, None, by="test", at=0.0))


def test_short_passwords_are_refused_and_hashes_are_argon2id() -> None:
    with pytest.raises(SpecError, match="12 to 256"):
        passwords.hashed("short")
    assert seed.ENCODED.startswith("$argon2id$")


def test_a_changed_password_ends_every_session(client) -> None:
    one = client("radiologist")
    assert one.post("/account/password", data={"old": "wrong", "new": "another long password"}).status_code == 400
    answer = one.post("/account/password", data={"old": seed.PASSWORD, "new": "another long password"})
    assert answer.status_code == 303
    assert one.get("/queue").status_code == 401


def test_every_answer_has_its_security_headers(anyone) -> None:
    for path in ("/login", "/health/live", "/nothing", "/queue"):
        headers = anyone.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers


def test_a_body_past_its_cap_is_refused(anyone) -> None:
    assert anyone.post("/login", data={"name": "x", "password": "y" * 70_000}).status_code == 413


def test_an_admin_disables_enables_and_resets_accounts_but_not_their_own(context, client, anyone) -> None:
    seed.person(context, "anna", "radiologist")
    admin = client("admin")

    def change(what: str, name: str = "anna"):
        return admin.post("/accounts/change", data={"name": name, "what": what})

    cookie = seed.cookie(context, "anna", "radiologist")
    assert change("end sessions").status_code == 200
    assert of_cookie(context, cookie) is None
    assert change("disable").status_code == 200
    assert login(anyone).status_code == 401
    assert change("enable").status_code == 200
    assert login(anyone).status_code == 303
    first = change("new password").text.split('class="key">')[1].split("<")[0]
    assert login(anyone).status_code == 401
    assert login(anyone, password=first).status_code == 303
    assert change("remove second factor").status_code == 200
    assert change("unlock").status_code == 200
    assert change("disable", "one-admin").status_code == 400
    assert change("disable", "nobody").status_code == 400


def test_the_password_of_who_logs_in_by_oidc_or_of_a_service_is_neither_offered_for_reset_nor_reset(
    context, client
) -> None:
    seed.person(context, "anna", "radiologist")
    seed.person(context, "ct", "service")
    name = context.journal.write(
        lambda c: accounts.enter_federated(c, "bert", "radiologist", address=None, at=context.clock())
    )
    cookie = seed.cookie(context, name, "radiologist")
    admin = client("admin")
    rows = {one.split("<")[0]: one for one in admin.get("/accounts").text.split('<th scope="row">')[1:]}
    offered = {one: "new password" in rows[one].split("</tr>")[0] for one in ("anna", "ct", "oidc:bert")}
    assert offered == {"anna": True, "ct": False, "oidc:bert": False}
    for who, why in ((name, "logs in by OIDC"), ("ct", "is a service")):
        answer = admin.post("/accounts/change", data={"name": who, "what": "new password"})
        assert answer.status_code == 400
        said = answer.text.split('role="alert">')[1].split("<")[0]
        assert f"{why} and has no password: allowed are accounts of people made here" in said
        assert 'class="key"' not in answer.text, "no password is shown that opens nothing"
        with context.engine.connect() as connection:
            assert connection.execute(select(table.c.password).where(table.c.name == who)).scalar_one() is None
    assert of_cookie(context, cookie) is not None, "a refused reset ends no session"


def test_nobody_makes_an_account_whose_name_is_the_identity_provider_s(context, client) -> None:
    answer = client("admin").post("/accounts", data={"name": "oidc:bert", "role": "admin"})
    assert answer.status_code == 400
    assert "identity provider" in answer.text
    with context.engine.connect() as connection:
        assert connection.execute(select(table.c.name).where(table.c.name == "oidc:bert")).first() is None
