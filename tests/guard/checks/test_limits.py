"""What the settings say about checks: trusted signers, and checks that take too long."""

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydicom.data import get_testdata_file
from tests.guard.checks.test_signatures import options, signed_file

from titer.core.errors import SpecError
from titer.guard.checks.instance import RULES, check_instance
from titer.guard.checks.limits import Limits, limits_of
from titer.guard.checks.past import NoPast
from titer.guard.checks.rule import LATE
from titer.guard.checks.series import RULES as SERIES_RULES
from titer.guard.checks.series import check_series
from titer.guard.home import Home
from titer.guard.records import Outcome
from titer.guard.settings import ChecksSettings

CT = Path(str(get_testdata_file("CT_small.dcm")))
PEM = serialization.Encoding.PEM


def _clock(step: float) -> Callable[[], float]:
    """Return a clock that goes on by `step` seconds each time it is read."""
    times: Iterator[int] = iter(range(10_000))
    return lambda: next(times) * step


def _issued(name: str, issuer: tuple[x509.Name, rsa.RSAPrivateKey] | None = None):
    """Return a new key with its certificate, its own issuer where none is given."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above, signing = issuer or (subject, key)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(above).public_key(key.public_key())
    dated = made.serial_number(1).not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2040, 1, 1))
    return key, dated.sign(signing, hashes.SHA256())


def test_checks_that_are_in_time_say_nothing_of_it() -> None:
    found = check_instance(CT, NoPast(), Limits(object_seconds=1.0, now=_clock(0.001)))
    assert LATE not in {one.rule for one in found}


def test_what_there_was_no_time_to_check_is_a_flag_that_names_it() -> None:
    (late,) = [
        one for one in check_instance(CT, NoPast(), Limits(object_seconds=2.5, now=_clock(1))) if one.rule == LATE
    ]
    assert late.outcome is Outcome.FLAG
    assert [rule.name in late.reason for rule in RULES] == [False] * 2 + [True] * (len(RULES) - 2)


def test_a_series_has_a_cap_of_its_own() -> None:
    limits = Limits(object_seconds=0.1, series_seconds=3.5, now=_clock(1))
    (late,) = [one for one in check_series([CT], NoPast(), limits=limits) if one.rule == LATE]
    assert late.outcome is Outcome.FLAG
    assert SERIES_RULES[-1].name in late.reason
    assert SERIES_RULES[0].name not in late.reason


@pytest.mark.skipif(shutil.which("dcmsign") is None, reason="dcmsign (DCMTK) is not installed")
def test_a_signer_is_known_by_the_authorities_of_the_settings(tmp_path: Path) -> None:
    home = Home(tmp_path / "guard")
    folder = home.root / "signers"
    folder.mkdir(parents=True)
    authority_key, authority = _issued("authority")
    key, certificate = _issued("scanner", (authority.subject, authority_key))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (tmp_path / "key.pem").write_bytes(key.private_bytes(PEM, form, serialization.NoEncryption()))
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(PEM))
    signed = signed_file(CT, tmp_path / "s.dcm", (tmp_path / "key.pem", tmp_path / "cert.pem"), *options())
    settings = ChecksSettings(signature_authorities=Path("signers"))

    def said() -> list[tuple[str, str]]:
        found = check_instance(signed, NoPast(), limits_of(home, settings))
        return [(str(one.outcome), one.reason) for one in found if one.rule == "signature"]

    (folder / "other.pem").write_bytes(_issued("another")[1].public_bytes(PEM))
    assert said() == [("FLAG", "digital signature 1 is by a signer whom no known authority vouches for")]
    (folder / "authority.pem").write_bytes(authority.public_bytes(PEM))
    assert said() == []
    settings = ChecksSettings()
    assert said() == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "is no folder"),
        ({}, "holds no certificate"),
        ({"notes.txt": b"hello"}, "holds no certificate"),
        ({"broken.pem": b"hello"}, "broken.pem holds no PEM certificate"),
    ],
)
def test_authorities_that_are_none_are_named(tmp_path: Path, files: dict[str, bytes] | None, said: str) -> None:
    home = Home(tmp_path)
    if files is not None:
        (tmp_path / "signers").mkdir()
        for name, content in files.items():
            (tmp_path / "signers" / name).write_bytes(content)
    with pytest.raises(SpecError, match=said):
        limits_of(home, ChecksSettings(signature_authorities=Path("signers")))
