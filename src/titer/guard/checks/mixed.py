"""T2: what all objects of a series share, and when they say that they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from titer.guard.checks.loaded import Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule
from titer.guard.checks.volume import Series
from titer.guard.records import Outcome

_PERSON = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
_ALL = ("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime", "Modality", "Laterality")
_VOLUME = (
    "SOPClassUID",
    "FrameOfReferenceUID",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "Rows",
    "Columns",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleType",
    "RescaleIntercept",
    "PatientPosition",
    "PatientOrientation",
    "SliceThickness",
)
_SLOPED = ("CT", "MR")
_LATE = timedelta(minutes=1)


def _person(series: Series, _past: Past) -> Iterator[Hit]:
    mixed = [key for key in _PERSON if len(_values(series, key)) > 1]
    if mixed:
        yield Hit(
            reason=f"objects of the series are of different patients: {', '.join(mixed)}",
            evidence={"attributes": mixed},
            outcome=Outcome.BLOCK,
        )


def _shared(series: Series, _past: Past) -> Iterator[Hit]:
    """Attributes of the series, and in a volume those of each slice that cannot differ from slice to slice."""
    volume = len(series.stack) == len(series.objects) > 1
    keys = [*_ALL, *(_VOLUME if volume else ())]
    if volume and series.first.text("Modality") in _SLOPED:
        keys.append("RescaleSlope")
    mixed = {key: counts for key in keys if len(counts := _values(series, key)) > 1}
    if mixed:
        listed = ", ".join(mixed)
        yield Hit(
            reason=f"objects of the series differ in what they must share: {listed}",
            habit=listed,
            evidence={key: sorted(counts.values(), reverse=True)[:5] for key, counts in mixed.items()},
        )


def _values(series: Series, keyword: str) -> Counter[str]:
    return Counter("\\".join(one.texts(keyword)) for one in series.objects)


def _orientation(series: Series, _past: Past) -> Iterator[Hit]:
    """A stack of slices has one orientation, but for scouts and rotations around an axis, which many slices share."""
    volumes = [one for one in series.objects if one.text("Modality") in ("CT", "MR", "PT")]
    if not series.stack or any("LOCALIZER" in one.texts("ImageType") for one in volumes):
        return
    odd = len(volumes) - len(series.stack)
    if 0 < odd <= max(2, len(volumes) // 20):
        yield Hit(
            reason="a few slices of the series are of another orientation",
            evidence={"slices": odd, "of": len(volumes)},
            habit=f"{odd}",
        )


def _times(series: Series, _past: Past) -> Iterator[Hit]:
    """A series begins before its objects are made: after an exchange of two series' times one of them does not."""
    began = _moment(series.first, "SeriesDate", "SeriesTime")
    if began is None:
        return
    original = "ORIGINAL" in series.first.texts("ImageType")
    for kind in ("Content", *(("Acquisition",) if original else ())):
        made = [at for one in series.objects if (at := _moment(one, f"{kind}Date", f"{kind}Time")) is not None]
        if made and began > min(made) + _LATE:
            minutes = round((began - min(made)).total_seconds() / 60, 1)
            yield Hit(
                reason=f"the series begins after the {kind}Time of its objects",
                evidence={"minutes": minutes},
                habit=kind,
            )


def _moment(one: Loaded, date: str, time: str) -> datetime | None:
    day, clock = one.text(date), one.text(time)
    try:
        return datetime.strptime(day + clock[:6], "%Y%m%d%H%M%S")
    except ValueError:
        return None


RULES: tuple[Rule[Series], ...] = (
    Rule(name="series-patient", catches="two patients in a series (patient-id-swap)", look=_person),
    Rule(
        name="series-shared",
        look=_shared,
        catches="one slice's own meaning of grey, length or side (rescale, pixel-spacing, photometric-flip)",
    ),
    Rule(name="series-orientation", catches="slices of another orientation", look=_orientation),
    Rule(name="series-times", catches="series that exchanged their times (series-order)", look=_times),
)
