"""Digital signatures, against DCMTK's dcmsign as the peer that signs."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydicom import dcmread
from pydicom.data import get_testdata_file

from titer.guard.checks.instance import check_instance
from titer.guard.checks.loaded import load
from titer.guard.checks.past import NoPast
from titer.guard.checks.signatures import verified
from titer.guard.records import Outcome

pytestmark = pytest.mark.skipif(shutil.which("dcmsign") is None, reason="dcmsign (DCMTK) is not installed")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and its certificate, PEM."""
    folder = tmp_path_factory.mktemp("signer")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scanner")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return folder / "key.pem", folder / "cert.pem"


def signed_file(source: Path, out: Path, signer: tuple[Path, Path], *options: str) -> Path:
    key, certificate = signer
    command = ["dcmsign", "+s", str(key), str(certificate), *(options or ("+m5",)), str(source), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def options() -> list[str]:
    text = subprocess.run(["dcmsign", "--help"], check=True, capture_output=True, text=True).stdout
    line = next(line for line in text.splitlines() if "mac-sha256" in line)
    return [line.split()[0]]


def reasons(path: Path) -> list[tuple[str, str]]:
    return [(hit.outcome.value, hit.reason) for hit in verified(load(path))]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "rtplan.dcm"])
def test_what_dcmsign_signed_is_whole(name: str, signer: tuple[Path, Path], tmp_path: Path) -> None:
    done = signed_file(Path(str(get_testdata_file(name))), tmp_path / name, signer, *options())
    assert reasons(done) == []


def test_one_flipped_bit_of_a_pixel_is_found(signer: tuple[Path, Path], tmp_path: Path) -> None:
    done = signed_file(Path(str(get_testdata_file("CT_small.dcm"))), tmp_path / "s.dcm", signer, *options())
    content, pixels = done.read_bytes(), dcmread(done).PixelData
    place = content.index(pixels) + len(pixels) // 2
    done.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert reasons(done) == [("BLOCK", "digital signature 1 is invalid: what was signed is not what came")]
    found = [one for one in check_instance(done, NoPast()) if one.rule == "signature"]
    assert [one.outcome for one in found] == [Outcome.BLOCK]


def test_another_patient_and_a_removed_element_are_found(signer: tuple[Path, Path], tmp_path: Path) -> None:
    done = signed_file(Path(str(get_testdata_file("CT_small.dcm"))), tmp_path / "s.dcm", signer, *options())
    dataset = dcmread(done)
    dataset.PatientID = "SOMEBODY"
    dataset.save_as(tmp_path / "other.dcm")
    assert reasons(tmp_path / "other.dcm")[0][0] == "BLOCK"
    dataset = dcmread(done)
    del dataset.PatientID
    dataset.save_as(tmp_path / "less.dcm")
    assert reasons(tmp_path / "less.dcm") == [("BLOCK", "digital signature 1 names elements that are no longer there")]


def test_a_signature_that_leaves_out_the_pixels_is_told(signer: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm")))
    done = signed_file(source, tmp_path / "s.dcm", signer, *options(), "-t", "0008,0018")
    assert reasons(done) == [("FLAG", "digital signature 1 does not cover the pixels")]


def test_a_signer_whom_nobody_vouches_for_is_told(signer: tuple[Path, Path], tmp_path: Path) -> None:
    done = signed_file(Path(str(get_testdata_file("CT_small.dcm"))), tmp_path / "s.dcm", signer, *options())
    own = x509.load_pem_x509_certificate(signer[1].read_bytes())
    assert list(verified(load(done), [own])) == []
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(2).not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2040, 1, 1))
    other = dated.sign(key, hashes.SHA256())
    assert [hit.outcome for hit in verified(load(done), [other])] == [Outcome.FLAG]


def test_an_old_algorithm_is_not_taken_for_verified(signer: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm")))
    key, certificate = signer
    done = tmp_path / "s.dcm"
    subprocess.run(
        ["dcmsign", "+s", str(key), str(certificate), str(source), str(done)], check=True, capture_output=True
    )
    assert [one[0] for one in reasons(done)] == ["FLAG"]
