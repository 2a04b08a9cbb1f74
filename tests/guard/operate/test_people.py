"""`titer guard account`, `token` and `receipt`, as the command line does them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from titer.cli.guard import guard
from titer.core.errors import SpecError
from titer.guard.operate import people
from titer.guard.store.tables import accounts
from titer.guard.web.sessions import of_token


@pytest.fixture
def titer(context):
    """Run a command on a guard's folder; returns what it said."""

    def run(command: str, *arguments: str) -> str:
        done = CliRunner().invoke(guard, [command, str(context.home.root), *arguments])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


def account(context, name: str):
    with context.engine.connect() as connection:
        return connection.execute(select(accounts).where(accounts.c.name == name)).first()


def test_a_token_is_shown_once_and_works_until_it_is_revoked(context, titer) -> None:
    secret = titer("token", "ct-scanner", "--role", "service", "--label", "room 3", "--days", "7").strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
    assert of_token(context, secret).name == "ct-scanner"
    listed = titer("token", "--list")
    assert listed.startswith("ct-scanner: room 3, until 20")
    assert secret not in listed
    assert titer("token", "ct-scanner", "--label", "room 3", "--revoke") == "ct-scanner: room 3 revoked\n"
    assert of_token(context, secret) is None
    assert titer("token", "--list") == ""


def test_making_and_revoking_a_token_are_audit_rows_without_the_token(context, titer) -> None:
    from titer.guard.store.tables import audit

    secret = titer("token", "mr", "--label", "x").strip()
    titer("token", "mr", "--label", "x", "--revoke")
    with context.engine.connect() as connection:
        rows = list(connection.execute(select(audit.c.event).order_by(audit.c.seq)).scalars())
    for said in ("account created", "token issued", "token revoked"):
        assert sum(said in row for row in rows) == 1
    assert all(secret not in row and "command line" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mr", "--role", "admin"), "role = 'admin' has no tokens: allowed is service"),
        ((), "NAME is missing"),
        (("ada",), "only accounts of role 'service' have tokens"),
        (("mr", "--label", "none", "--revoke"), "token = 'none' of 'mr' is not known"),
        (("mr", "--list", "--revoke"), "give one of them"),
    ],
)
def test_a_token_that_cannot_be_is_refused_with_what_is_allowed(context, titer, arguments, said) -> None:
    people.add(context, "ada", "admin", "a long enough password")
    with pytest.raises(SpecError, match=re.escape(said)):
        titer("token", *arguments)


def test_an_account_is_made_and_its_password_reset_by_a_file(context, titer, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a long enough password\n")
    second.write_text("another long password\n")
    said = titer("account", "ines", "--role", "radiologist", "--password-file", str(first))
    assert "has to be changed" in said
    made = account(context, "ines")
    assert (made.role, made.must_change) == ("radiologist", True)
    titer("account", "ines", "--reset", "--password-file", str(second))
    assert account(context, "ines").password != made.password
    assert account(context, "ines").must_change


def test_what_has_no_password_or_is_not_there_is_not_reset(titer, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("a long enough password")
    titer("token", "mr")
    for name, said in (("mr", "has no password"), ("nobody", "is not known")):
        with pytest.raises(SpecError, match=said):
            titer("account", name, "--reset", "--password-file", str(given))
    with pytest.raises(SpecError, match="give one of them"):
        titer("account", "x", "--password-file", str(given))


def test_a_receipt_of_a_study_that_was_not_received_says_so(titer, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nothing of it was received"):
        titer("receipt", "1.2.3")
    bad = tmp_path / "bad.json"
    for content in ("[]", "{", '"x"'):
        bad.write_text(content)
        with pytest.raises(SpecError, match="is no receipt"):
            titer("receipt", "1.2.3", "--verify", str(bad))
    bad.write_text("{}")
    done = CliRunner().invoke(guard, ["receipt", str(tmp_path), "1.2.3", "--verify", str(bad)])
    assert isinstance(done.exception, SpecError), "the folder holds no key"
