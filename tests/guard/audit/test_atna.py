"""The audit log reaches a repository as DICOM's XML over syslog with TLS."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trustme

from titer.core.errors import SpecError
from titer.guard.audit import chain
from titer.guard.audit.atna import export, message
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.operate.keeper import Keeper
from titer.guard.settings import load


class Repository:
    """Takes one connection over TLS and keeps what comes."""

    def __init__(self, authority: trustme.CA) -> None:
        import socket

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.received = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._context = context
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            plain, _ = self._socket.accept()
            with self._context.wrap_socket(plain, server_side=True) as stream:
                while block := stream.recv(4096):
                    self.received += block
        except OSError:
            pass
        finally:
            self._socket.close()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.fixture
def repository(authority: trustme.CA) -> Iterator[Repository]:
    made = Repository(authority)
    yield made
    made.thread.join(10)


def _fill(context: Context) -> None:
    for number in range(3):
        event = audit_event(
            Kind.TRANSFERRED,
            action="C",
            agent="CT1",
            at=float(number),
            result=Result.SUCCESS,
            what={"SOPInstanceUID": f"1.2.{number}"},
            detail={"status": "0x0000 <&>"},
            network="10.0.0.7",
        )
        context.journal.write(lambda connection, event=event: chain.append(connection, event, 0.0))


def test_every_row_after_the_last_one_arrives_with_its_length_before_it(
    context: Context, repository: Repository, tmp_path: Path
) -> None:
    _fill(context)
    with context.engine.connect() as connection:
        last = export(connection, 1, f"syslog+tls://127.0.0.1:{repository.port}", tmp_path / "ca.pem")
    repository.thread.join(10)
    assert last == 3
    rest, messages = repository.received, []
    while rest:
        length, _, rest = rest.partition(b" ")
        messages.append(rest[: int(length)])
        rest = rest[int(length) :]
    assert len(messages) == 2
    assert messages[0].startswith(b"<109>1 1970-01-01T00:00:01.000+00:00 ")
    root = ElementTree.fromstring(messages[0].split(b"\xef\xbb\xbf")[1])
    assert root.find("EventIdentification/EventID").get("csd-code") == "110104"
    assert root.find("ActiveParticipant").get("NetworkAccessPointID") == "10.0.0.7"
    assert root.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "SOPInstanceUID=1.2.1"
    assert root.find("ParticipantObjectIdentification/ParticipantObjectDetail").get("value") == "0x0000 <&>"


def test_a_repository_that_shows_another_certificate_gets_nothing(context: Context, tmp_path: Path) -> None:
    _fill(context)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    stranger = Repository(trustme.CA())
    with context.engine.connect() as connection, pytest.raises(ssl.SSLCertVerificationError):
        export(connection, 0, f"syslog+tls://127.0.0.1:{stranger.port}", tmp_path / "other.pem")
    stranger.thread.join(10)
    assert stranger.received == b""


def test_what_a_repository_has_is_not_sent_again(home: Home, repository: Repository, tmp_path: Path) -> None:
    home.settings.write_text(
        f'[audit]\nsyslog = "syslog+tls://127.0.0.1:{repository.port}"\nsyslog_authorities = "{tmp_path}/ca.pem"\n'
    )
    with closing(opened(home, load(home))) as exporting:
        _fill(exporting)
        keeper = Keeper(exporting)
        keeper.export()
        keeper.export()
        repository.thread.join(10)
        assert repository.received.count(b"<AuditMessage>") == 3
        _fill(exporting)
        with pytest.raises(OSError, match="refused"):
            keeper.export()


def test_an_address_without_tls_is_refused(context: Context, tmp_path: Path) -> None:
    with context.engine.connect() as connection, pytest.raises(SpecError, match="syslog\\+tls://HOST:PORT"):
        export(connection, 0, "udp://host:514", tmp_path / "ca.pem")


def test_a_message_without_an_object_is_well_formed() -> None:
    root = ElementTree.fromstring(message(audit_event(Kind.APPLICATION, action="E", agent="guard", at=0.0)))
    assert root.find("ParticipantObjectIdentification") is None
    assert root.find("ActiveParticipant").get("UserIsRequestor") == "false"
