"""T1: the header against itself and against the standard: UIDs, class, required attributes, text, dates, pixel form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from titer.guard.checks._iods import EVERY, MODALITIES, REQUIRED
from titer.guard.checks.loaded import Loaded, text
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.records import Outcome

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}([0-5]\d([0-5]\d|60)?(\.\d{1,6})?)?")
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_CODES = (
    "Modality",
    "PatientSex",
    "Laterality",
    "ImageLaterality",
    "BodyPartExamined",
    "PatientPosition",
    "PhotometricInterpretation",
)
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate")
_TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")
_NUMBERS = (
    "InstanceNumber",
    "SeriesNumber",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
)
_YEAR = 365.2425
_OLDEST = 130
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3,
            "YBR_PARTIAL_420": 3, "YBR_ICT": 3, "YBR_RCT": 3}  # fmt: skip


def _identity(one: Loaded, _past: Past) -> Iterator[Hit]:
    """UIDs: well-formed, and the same in the file's meta information as in its data set (PS3.10, 7.1; PS3.5, 9.1)."""
    meta = one.dataset.file_meta
    for inner, outer in (("SOPClassUID", "MediaStorageSOPClassUID"), ("SOPInstanceUID", "MediaStorageSOPInstanceUID")):
        told = text(meta, outer)
        if told and told != one.text(inner):
            yield Hit(
                reason=f"{outer} and {inner} differ",
                evidence={outer: told, inner: one.text(inner)},
                outcome=Outcome.BLOCK,
            )
    for key in _UIDS:
        uid = one.text(key)
        if uid and (len(uid) > 64 or not _UID.fullmatch(uid)):
            yield Hit(reason=f"{key} is no UID", evidence={key: uid}, outcome=Outcome.BLOCK)


def _modality(one: Loaded, _past: Past) -> Iterator[Hit]:
    allowed = MODALITIES.get(one.text("SOPClassUID"))
    told = one.text("Modality")
    if allowed is not None and told and told not in allowed:
        reason = f"Modality does not fit the SOP class: allowed are {', '.join(allowed)}"
        yield Hit(reason=reason, evidence={"SOPClassUID": one.text("SOPClassUID"), "Modality": told})


def _required(one: Loaded, _past: Past) -> Iterator[Hit]:
    wanted = (*EVERY, *REQUIRED.get(one.text("SOPClassUID"), ()))
    absent = [key for key in wanted if key not in one.dataset or not _has_value(one, key)]
    if absent:
        listed = ", ".join(absent)
        yield Hit(
            reason=f"attributes of type 1 are absent or empty: {listed}", evidence={"absent": absent}, habit=listed
        )


def _has_value(one: Loaded, keyword: str) -> bool:
    if keyword == "PixelData":
        return one.pixel_digest is not None
    value = one.dataset.get(keyword)
    return value is not None and str(value) != ""


def _form(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Values in the form of their VR (PS3.5, 6.2), of the attributes that other rules and models depend on."""
    wrong = [key for key in _CODES if (value := one.text(key)) and not _CODE.fullmatch(value)]
    wrong += [key for key in _DATES if (value := one.text(key)) and _day(value) is None]
    wrong += [key for key in _TIMES if (value := one.text(key)) and not _TIME.fullmatch(value)]
    wrong += [key for key in _NUMBERS if not _is_numeric(one, key)]
    if wrong:
        listed = ", ".join(wrong)
        yield Hit(
            reason=f"values are not of the form that their VR asks for: {listed}",
            evidence={"attributes": wrong},
            habit=listed,
        )


def _is_numeric(one: Loaded, keyword: str) -> bool:
    try:
        one.numbers(keyword)
    except Exception:  # noqa: BLE001 - whatever a malformed number makes pydicom raise
        return False
    return True


def _charset(one: Loaded, _past: Past) -> Iterator[Hit]:
    """SpecificCharacterSet: a term that is defined, and text that it can decode (PS3.3, C.12.1.1.2)."""
    from pydicom.charset import decode_bytes, python_encoding

    terms = one.texts("SpecificCharacterSet") or ("",)
    unknown = [term for term in terms if term not in python_encoding]
    if unknown:
        yield Hit(
            reason="SpecificCharacterSet names no character set that is defined",
            evidence={"terms": unknown},
            habit=",".join(unknown),
        )
        return
    for key in ("PatientName", "SeriesDescription", "ProtocolName", "InstitutionName"):
        raw = one.dataset.get_item(key) if key in one.dataset else None
        value = getattr(raw, "value", None)
        if isinstance(value, bytes) and "�" in decode_bytes(value, [python_encoding[term] for term in terms], set()):
            yield Hit(reason=f"{key} cannot be decoded by SpecificCharacterSet", evidence={"terms": terms}, habit=key)


def _dates(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Nothing was made before its patient was born, or in the future."""
    days = {key: day for key in _DATES if (day := _day(one.text(key))) is not None}
    tomorrow = datetime.now(UTC).date() + timedelta(days=2)  # the earth's clocks differ by 26 hours
    for key, day in days.items():
        if day > tomorrow:
            yield Hit(reason=f"{key} lies in the future", evidence={"attribute": key})
    born = days.get("PatientBirthDate")
    for key in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        if born and key in days and days[key] < born:
            yield Hit(reason=f"{key} lies before the patient's birth", evidence={"attribute": key})


def _age(one: Loaded, _past: Past) -> Iterator[Hit]:
    """PatientAge against birth and study: who exchanges identities rarely exchanges ages.

    A birthday on January 1st, or more than 130 years ago, is what de-identification writes, and says nothing.
    """
    born, study, told = _day(one.text("PatientBirthDate")), _day(one.text("StudyDate")), one.text("PatientAge")
    if born is None or study is None or not re.fullmatch(r"\d{3}Y", told) or (born.month, born.day) == (1, 1):
        return
    years = (study - born).days / _YEAR
    if 0 <= years <= _OLDEST and not int(told[:3]) - 1 <= years < int(told[:3]) + 2:
        yield Hit(
            reason="PatientAge does not follow from birth and study",
            evidence={"years_apart": round(years - int(told[:3]), 1)},
        )


def _pixels(one: Loaded, _past: Past) -> Iterator[Hit]:
    """The image pixel module against itself and the length of the pixels (PS3.3, C.7.6.3; PS3.5, 8.1)."""
    allocated, stored, high = (one.dataset.get(key) for key in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated is None or stored is None or high is None:
        return
    if not (1 <= stored <= allocated <= 64) or high != stored - 1 or (allocated != 1 and allocated % 8):
        yield Hit(
            reason="BitsAllocated, BitsStored and HighBit do not fit each other",
            evidence={"BitsAllocated": allocated, "BitsStored": stored, "HighBit": high},
            habit=f"{allocated}/{stored}/{high}",
        )
    photometric, samples = one.text("PhotometricInterpretation"), one.dataset.get("SamplesPerPixel")
    wanted = _SAMPLES.get(photometric)
    if wanted is None or samples != wanted:
        yield Hit(
            reason="PhotometricInterpretation is not defined or has another number of samples",
            evidence={"PhotometricInterpretation": photometric, "SamplesPerPixel": samples},
            habit=f"{photometric}/{samples}",
        )
    yield from _length(one, allocated, samples or 1, photometric)


def _length(one: Loaded, allocated: int, samples: int, photometric: str) -> Iterator[Hit]:
    if not one.native or one.pixel_digest is None:
        return
    frames = int(one.number("NumberOfFrames") or 1)
    rows, columns = int(one.dataset.get("Rows") or 0), int(one.dataset.get("Columns") or 0)
    values = rows * columns * frames * (2 if photometric == "YBR_FULL_422" else samples)
    wanted, given = (values * allocated + 7) // 8, len(one.dataset.PixelData)
    if not 0 < wanted <= given <= wanted + 1:
        short = given < wanted or not wanted
        yield Hit(
            reason="the pixels are not as long as size, frames and bits say",
            outcome=Outcome.BLOCK if short else Outcome.FLAG,
            habit=None if short else "longer",
            evidence={"bytes": given, "expected": wanted, "Rows": rows, "Columns": columns},
        )


def _window(one: Loaded, _past: Past) -> Iterator[Hit]:
    """A window for each centre, at least 1 wide (PS3.3, C.11.2.1.2.1)."""
    centers, widths = one.numbers("WindowCenter"), one.numbers("WindowWidth")
    exact = one.text("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    if len(centers) != len(widths) or any(width <= 0 if exact else width < 1 for width in widths):
        yield Hit(
            reason="WindowCenter and WindowWidth do not fit, or a width is below 1",
            evidence={"WindowCenter": centers, "WindowWidth": widths},
            habit="window",
        )


def _day(value: str) -> date | None:
    if not _DATE.fullmatch(value):
        return None
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return None


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="uids", catches="UIDs that are none, or differ between file and data set", look=_identity),
    Rule(name="modality", catches="a modality that the SOP class cannot have (modality-swap)", look=_modality),
    Rule(name="required", catches="absent attributes of type 1", look=_required),
    Rule(name="value-form", catches="codes, dates and numbers that are none", look=_form),
    Rule(name="character-set", catches="undefined character sets, text that they cannot decode", look=_charset),
    Rule(name="dates", catches="dates that cannot be", look=_dates),
    Rule(name="age", catches="another patient's identity on an image (patient-id-swap)", look=_age),
    Rule(name="pixel-form", catches="bits, samples and length of pixels that do not fit", look=_pixels),
    Rule(name="window", catches="windows that show nothing", look=_window),
)
