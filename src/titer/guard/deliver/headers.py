"""What a document of the guard takes over from the images that it is about."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset

MANUFACTURER = "Titer"
_WANTED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet",
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "Modality", "Rows", "Columns", "NumberOfFrames", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "ImageType",
)  # fmt: skip
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_UTF8 = "ISO_IR 192"


def header(path: Path) -> Dataset:
    """Return what is needed of an image's header, its text as Unicode; what must stand there and does not is empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that are against the standard: they stay as they are
        read = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_WANTED))
        read.decode()
    read.SpecificCharacterSet = _UTF8  # the text is Unicode now, whatever it was
    for keyword in _EMPTY:
        if keyword not in read:
            setattr(read, keyword, None)
    return read


def finish(document: Dataset, source: Dataset, body: Mapping[str, Any]) -> None:
    """Give a document text in UTF-8, and times that follow from its verdict: the same verdict, the same bytes."""
    document.SpecificCharacterSet = _UTF8
    for keyword in ("PatientName", "PatientID", "StudyDescription", "StudyID", "AccessionNumber", "IssuerOfPatientID"):
        if source.get(keyword):
            setattr(document, keyword, str(source[keyword].value))
    if source.get("ReferringPhysicianName"):
        document.ReferringPhysicianName = str(source.ReferringPhysicianName)
    at = datetime.fromtimestamp(body["created_at"], UTC)
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    document.InstanceCreationDate = document.ContentDate = document.SeriesDate = date
    document.InstanceCreationTime = document.ContentTime = document.SeriesTime = time
    document.TimezoneOffsetFromUTC = "+0000"
    for equipment in document.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = at.strftime("%Y%m%d%H%M%S")
