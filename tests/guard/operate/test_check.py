"""`titer guard check` names what would keep a guard from working."""

import datetime
import socket

import pytest
import trustme

from titer.guard.home import Home
from titer.guard.operate.check import problems


def test_a_guard_that_can_start_has_no_problem(home: Home) -> None:
    home.settings.write_text('[dicom]\nport = 41112\n[web]\nport = 48080\n[[routes]]\nname = "all"\n')
    assert list(problems(home)) == []


def test_keys_that_others_can_read_or_that_are_gone_are_named(home: Home) -> None:
    (home.keys / "identity.key").chmod(0o644)
    (home.keys / "signing.pem").unlink()
    found = " | ".join(problems(home))
    assert "identity.key can be read by others" in found
    assert "signing.pem is missing" in found


def test_a_certificate_that_expired_or_will_soon_is_named(home: Home) -> None:
    authority = trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    leaf = authority.issue_cert("guard.test", not_after=now - datetime.timedelta(days=2))
    soon = authority.issue_cert("guard.test", not_after=now + datetime.timedelta(days=3))
    for name, one in (("old", leaf), ("soon", soon)):
        one.private_key_pem.write_to_path(home.root / f"{name}.key")
        one.cert_chain_pems[0].write_to_path(home.root / f"{name}.pem")
    authority.cert_pem.write_to_path(home.root / "ca.pem")
    table = 'certificate = "{0}.pem"\nkey = "{0}.key"\nauthorities = "ca.pem"\n'
    home.settings.write_text(f"[dicom.tls]\n{table.format('old')}[web.tls]\n{table.format('soon')}")
    found = " | ".join(problems(home))
    assert "dicom.tls.certificate expired on" in found
    assert "web.tls.certificate expires on" in found
    home.settings.write_text(f"[dicom.tls]\n{table.format('none')}")
    assert "dicom.tls.key = 'none.key' cannot be read" in " | ".join(problems(home))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[spool]\nfree_mib = 999999999", "spool.free_mib"),
        ('database = "sqlite:///none/x.db"', "database: cannot be opened"),
        ("", "routes: there is none"),
        (
            '[[destinations]]\nname = "p"\nkind = "dicom"\naddress = "127.0.0.1:9"\nae_title = "P"',
            "destinations.p: 127.0.0.1:9 does not answer",
        ),
        (
            '[[destinations]]\nname = "p"\nkind = "dicom"\naddress = "nowhere"\nae_title = "P"',
            "'nowhere' is not host:port",
        ),
        ('[[destinations]]\nname = "f"\nkind = "fhir"\naddress = "ftp://x/"', "is no http or https URL"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(home: Home, text: str, said: str) -> None:
    home.settings.write_text(text)
    found = list(problems(home))
    assert any(said in one for one in found), found
    assert not any("\n" in one for one in found)


def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        home.settings.write_text(f"[dicom]\nport = {taken.getsockname()[1]}\n")
        assert any(one.startswith("dicom: 127.0.0.1:") for one in problems(home))
