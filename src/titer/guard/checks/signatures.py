"""DICOM digital signatures (PS3.15, Annex C; PS3.3, C.12.1.1.3): what was signed is what came.

The message authentication code runs over the named elements in the order of their tags, encoded in the transfer syntax
that MAC parameters name, and over the signature's own item without certificate, signature and time stamp. A sequence is
fed without its length, its items without lengths and delimiters, and the sequence's delimiter without length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa

from titer.guard.checks.loaded import Loaded, load, text
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.records import Outcome

if TYPE_CHECKING:
    from pydicom import Dataset

SIGNATURES, PARAMETERS = 0xFFFAFFFA, 0x4FFE0001
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_NOT_SIGNED = (0x04000115, 0x04000120, 0x04000305, 0x04000310)
"""Certificate of signer, signature, certified time stamp and its type: what the signature's own item leaves out."""
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXELS = 0x7FE00010
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1,
    "MD5": hashes.MD5,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}
_WEAK = ("MD5", "SHA1", "RIPEMD160")


class NotVerified(Exception):  # noqa: N818 - says what happened
    """A signature that cannot be judged: an algorithm or a syntax that is not supported."""


def verified(one: Loaded, authorities: Sequence[x509.Certificate] = ()) -> Iterator[Hit]:
    """Yield what is wrong with an object's signatures, nothing where it has none or all are whole.

    Args:
        one: freshly read: its elements must still be the bytes that came.
        authorities: certificates of those whose word counts; none: whoever signed, the content is compared only.
    """
    dataset = one.dataset
    if SIGNATURES not in dataset:
        return
    parameters = {item.get("MACIDNumber"): item for item in _items(dataset, PARAMETERS)}
    for number, item in enumerate(_items(dataset, SIGNATURES)):
        settings = parameters.get(item.get("MACIDNumber"))
        if settings is None:
            yield _hit(number, "has no MAC parameters", Outcome.BLOCK)
            continue
        try:
            yield from _judged(one, number, item, settings, authorities)
        except (NotVerified, UnsupportedAlgorithm) as error:
            yield _hit(number, f"cannot be verified: {error}", Outcome.FLAG)


def _judged(
    one: Loaded, number: int, item: Dataset, settings: Dataset, authorities: Sequence[x509.Certificate]
) -> Iterator[Hit]:
    named = [int(tag) for tag in _listed(settings)]
    absent = [f"{tag:08X}" for tag in named if tag not in one.dataset]
    if absent:
        yield _hit(number, "names elements that are no longer there", Outcome.BLOCK, absent=absent)
        return
    algorithm = text(settings, "MACAlgorithm")
    certificate = _certificate(item)
    content = _content(one, named, item, text(settings, "MACCalculationTransferSyntaxUID"))
    if not _holds(certificate.public_key(), bytes(item.get_item(0x04000120).value), content, algorithm):
        yield _hit(number, "is invalid: what was signed is not what came", Outcome.BLOCK, algorithm=algorithm)
        return
    if algorithm in _WEAK:
        yield _hit(number, f"rests on {algorithm}, which is weak", Outcome.FLAG, algorithm=algorithm)
    if one.pixel_digest is not None and _PIXELS not in named:
        yield _hit(number, "does not cover the pixels", Outcome.FLAG)
    if authorities and not any(_issued(certificate, authority) for authority in authorities):
        yield _hit(number, "is by a signer whom no known authority vouches for", Outcome.FLAG)


def _hit(number: int, told: str, outcome: Outcome, **evidence: Any) -> Hit:
    return Hit(
        reason=f"digital signature {number + 1} {told}", evidence={"signature": number + 1, **evidence}, outcome=outcome
    )


def _items(dataset: Dataset, tag: int) -> list[Dataset]:
    return list(dataset[tag].value or ()) if tag in dataset else []


def _listed(settings: Dataset) -> list[int]:
    value = settings.get("DataElementsSigned")
    if value is None:
        return []
    return sorted(int(tag) for tag in (value if hasattr(value, "__iter__") and not isinstance(value, int) else [value]))


def _certificate(item: Dataset) -> x509.Certificate:
    if text(item, "CertificateType") != "X509_1993_SIG":
        raise NotVerified("the type of its certificate is not X509_1993_SIG")
    try:
        return x509.load_der_x509_certificate(_unpadded(bytes(item.get_item(0x04000115).value)))
    except (ValueError, TypeError, AttributeError):
        raise NotVerified("its certificate cannot be read") from None


def _unpadded(der: bytes) -> bytes:
    """Return a DER value without the byte that makes its length even."""
    if len(der) > 4 and der[1] == 0x82:
        return der[: 4 + int.from_bytes(der[2:4], "big")]
    return der


def _content(one: Loaded, named: Sequence[int], item: Dataset, syntax: str) -> bytes:
    if _BIG_ENDIAN in (syntax, one.syntax) or syntax == _IMPLICIT:
        raise NotVerified("big endian and implicit encodings of signatures are not supported")
    parts = [_element(one.dataset, tag) for tag in named]
    own = [int(tag) for tag in sorted(item.keys()) if int(tag) not in _NOT_SIGNED]
    return b"".join([*parts, *(_element(item, tag) for tag in own)])


def _element(dataset: Dataset, tag: int) -> bytes:
    """Return an element as it is fed to the MAC, in explicit little endian."""
    raw = dataset.get_item(tag)
    vr = _vr(raw, tag, dataset)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("ascii")
    if vr == "SQ":
        items = (
            _ITEM + b"".join(_element(item, int(inner)) for inner in sorted(item.keys()))
            for item in _items(dataset, tag)
        )
        return head + b"\0\0" + b"".join(items) + _SEQUENCE_END
    if getattr(raw, "length", 0) == 0xFFFFFFFF:
        raise NotVerified("compressed pixels are not supported")
    value = _bytes(raw, vr)
    value += b"\0" * (len(value) % 2)
    length = b"\0\0" + struct.pack("<I", len(value)) if vr in _LONG else struct.pack("<H", len(value))
    return head + length + value


def _bytes(raw: Any, vr: str) -> bytes:
    """Return a value's bytes: as they came, or written again where reading the file had to turn them into a value."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    if isinstance(raw.value, bytes):
        return raw.value
    if raw.value is None or raw.value == "":
        return b""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_data_element(stream, raw)
    return bytes(stream.getvalue()[12 if vr in _LONG else 8 :])


def _vr(raw: Any, tag: int, dataset: Dataset) -> str:
    from pydicom.datadict import dictionary_VR

    told = getattr(raw, "VR", None)
    if told:
        return str(told)
    try:
        known = dictionary_VR(tag)
    except KeyError:
        raise NotVerified(f"the VR of element {tag:08X} is not known") from None
    if known == "US or SS":
        return "SS" if dataset.get("PixelRepresentation", 0) == 1 else "US"
    return "OW" if " or " in known else known  # PS3.5, A.1: so it is where no VR is told


def _holds(key: Any, signature: bytes, content: bytes, algorithm: str) -> bool:
    made = _HASHES.get(algorithm)
    if made is None:
        raise NotVerified(f"MAC algorithm {algorithm!r} is not supported: allowed are {', '.join(_HASHES)}")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature[: key.key_size // 8], content, padding.PKCS1v15(), made())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der(signature), content, ec.ECDSA(made()))
        elif isinstance(key, dsa.DSAPublicKey):
            key.verify(_der(signature), content, made())
        else:
            raise NotVerified("the kind of its key is not supported: allowed are RSA, DSA and elliptic curves")
    except InvalidSignature:
        return False
    return True


def _der(signature: bytes) -> bytes:
    return signature[: 2 + signature[1]] if len(signature) > 2 and signature[1] < 0x80 else signature


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return certificate == authority
    return True


def rules(authorities: Sequence[x509.Certificate] = ()) -> tuple[Rule[Loaded], ...]:
    """Return the rule of signatures; with authorities a signer whom none of them vouches for is a FLAG."""

    def look(one: Loaded, _past: Past) -> Iterator[Hit]:
        if SIGNATURES in one.dataset:
            yield from verified(load(one.path), authorities)  # read again: earlier rules turned bytes into values

    return (Rule(name="signature", catches="a change after an object was signed", look=look),)


RULES = rules()
