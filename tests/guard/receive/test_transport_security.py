"""TLS of the DICOM port: who has no certificate, a wrong one, or that of another title, gets no association."""

import datetime
import hashlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from dicom_peers import Raw, body, echoscu, slice_of

from titer.core.errors import SpecError
from titer.guard.store.tables import audit, objects


class Authority:
    """A certificate authority, and certificates of it as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.made = trustme.CA(organization_name=name)
        self.folder, self.name = folder, name
        self.path = folder / f"{name}.pem"
        self.made.cert_pem.write_to_path(self.path)

    def issue(self, name: str, **options: object) -> tuple[Path, Path, str]:
        """A certificate: its file, its key's, its fingerprint."""
        issued = self.made.issue_cert(f"{name}.test", "127.0.0.1", **options)
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        der = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
        return certificate, key, hashlib.sha256(der).hexdigest()

    def client(self, certificate: Path | None, key: Path | None, **options: object) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.path))
        context.check_hostname = False
        if certificate and key:
            context.load_cert_chain(certificate, key)
        for name, value in options.items():
            setattr(context, name, value)
        return context


@pytest.fixture
def hospital(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "hospital")


@pytest.fixture
def secure(start: Callable, hospital: Authority) -> Callable:
    """Start a guard with TLS; CT1's certificate is pinned, MR1's is not."""
    certificate, key, _ = hospital.issue("guard")
    tls = f'[dicom.tls]\ncertificate = "{certificate}"\nkey = "{key}"\nauthorities = "{hospital.path}"\n'

    def make(pinned: str) -> object:
        peers = f'[[dicom.peers]]\nae_title = "CT1"\ncertificate = "{pinned}"\n[[dicom.peers]]\nae_title = "MR1"\n'
        return start(tls + peers)

    return make


def _refused(port: int, context: ssl.SSLContext, calling: str = "MR1") -> bool:
    """Whether no association comes about; with TLS 1.3 a client learns of its certificate only when it reads."""
    try:
        with Raw(port, calling=calling, tls=context) as peer:
            return peer.associate() != 2
    except OSError:
        return True


def test_a_peer_with_a_certificate_of_the_hospital_sends(secure, hospital: Authority) -> None:
    certificate, key, pin = hospital.issue("ct1")
    guard = secure(":".join(pin[at : at + 2].upper() for at in range(0, 64, 2)))
    one = slice_of(1)
    with Raw(guard.port, calling="CT1", tls=hospital.client(certificate, key)) as peer:
        assert peer.socket.version() == "TLSv1.3"
        assert peer.associate() == 2
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
    assert len(guard.rows(objects)) == 1


def test_dcmtk_speaks_tls_with_it(secure, hospital: Authority) -> None:
    certificate, key, pin = hospital.issue("ct1")
    guard = secure(pin)
    options = ("+tls", str(key), str(certificate), "+cf", str(hospital.path), "-aet", "CT1")
    done = echoscu(guard.port, *options)
    assert done.returncode == 0, done.stderr


def test_a_stolen_title_without_its_certificate_is_refused(secure, hospital: Authority) -> None:
    pin = hospital.issue("ct1")[2]
    certificate, key, _ = hospital.issue("thief")
    guard = secure(pin)
    assert _refused(guard.port, hospital.client(certificate, key), "CT1")
    assert "comes without its certificate" in guard.rows(audit)[-1].event
    assert not _refused(guard.port, hospital.client(certificate, key), "MR1")


def test_a_wrong_authority_and_no_certificate_are_refused(secure, hospital: Authority, tmp_path: Path) -> None:
    guard = secure("ab" * 32)
    other = Authority(tmp_path, "other")
    certificate, key, _ = other.issue("stranger")
    assert _refused(guard.port, hospital.client(certificate, key))
    assert _refused(guard.port, hospital.client(None, None))
    assert "connection refused: TLS" in guard.rows(audit)[-1].event


def test_an_expired_certificate_is_refused(secure, hospital: Authority) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate, key, _ = hospital.issue("old", not_after=yesterday)
    guard = secure("ab" * 32)
    assert _refused(guard.port, hospital.client(certificate, key))


def test_old_tls_and_no_tls_are_refused(secure, hospital: Authority) -> None:
    certificate, key, _ = hospital.issue("mr1")
    guard = secure("ab" * 32)
    old = hospital.client(certificate, key)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert _refused(guard.port, old)
    with Raw(guard.port, calling="MR1") as plain:
        assert plain.associate() != 2
    assert not _refused(guard.port, hospital.client(certificate, key, maximum_version=ssl.TLSVersion.TLSv1_2))


def test_g6_silent_sockets_before_the_handshake_keep_nobody_out(secure, hospital: Authority) -> None:
    certificate, key, _ = hospital.issue("mr1")
    guard = secure("ab" * 32)
    silent = [socket.create_connection(("127.0.0.1", guard.port)) for _ in range(300)]
    assert not _refused(guard.port, hospital.client(certificate, key))
    for one in silent:
        one.close()


def test_a_pinned_title_is_refused_where_there_is_no_tls(start: Callable) -> None:
    guard = start(f'[[dicom.peers]]\nae_title = "CT1"\ncertificate = "{"ab" * 32}"\n')
    with Raw(guard.port, calling="CT1") as peer:
        assert peer.associate() == 3


def test_certificates_that_are_not_there_are_named(start: Callable, hospital: Authority) -> None:
    certificate, key, _ = hospital.issue("guard")
    with pytest.raises(SpecError, match=r"dicom\.tls"):
        start(f'[dicom.tls]\ncertificate = "{certificate}"\nkey = "no.key"\nauthorities = "{hospital.path}"\n')
    with pytest.raises(SpecError, match=r"dicom\.tls"):
        start(f'[dicom.tls]\ncertificate = "{certificate}"\nkey = "{hospital.path}"\nauthorities = "{key}"\n')
