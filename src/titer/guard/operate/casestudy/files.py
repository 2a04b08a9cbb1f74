"""MR slices as DICOM files, each a study of its own, as the virtual modality sends them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid
from torch import Tensor

from titer.guard.operate.studies import part10

_FIELD_MM = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One file of one slice; `series` and `object_` are its UIDs."""

    name: str
    series: str
    object_: str
    content: bytes


def files(images: Tensor, condition: str, seed: int) -> list[Sent]:
    """Return one study for each image.

    Args:
        images: whole grey levels [N, 1, H, W], 0 to 255; other values are a mistake of the caller.
        condition: which stage and attack; it makes the UIDs, so that no two conditions share one.
        seed: of the case study.
    """
    stored = images[:, 0].numpy()
    if (stored != np.round(stored)).any() or stored.min() < 0 or stored.max() > 255:
        raise ValueError("images hold values that 8 bits cannot store")
    now = datetime.now(UTC)
    return [_sent(pixels.astype(np.uint8), condition, number, seed, now) for number, pixels in enumerate(stored)]


def _sent(pixels: NDArray[np.uint8], condition: str, number: int, seed: int, at: datetime) -> Sent:
    study, series, one, frame = (
        generate_uid(entropy_srcs=["titer case study", str(seed), condition, str(number), part])
        for part in ("study", "series", "object", "frame")
    )
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, one
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = study, series, frame
    made.PatientID, made.PatientName = f"CASE-{number:04d}", f"Case^{number:04d}"
    made.PatientBirthDate, made.PatientSex, made.PositionReferenceIndicator = "", "", ""
    made.StudyDate = made.SeriesDate = made.ContentDate = at.strftime("%Y%m%d")
    made.StudyTime = made.SeriesTime = made.ContentTime = at.strftime("%H%M%S")
    made.AccessionNumber, made.ReferringPhysicianName, made.StudyID = "", "", "1"
    made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "MR", "Titer case study", 1, 1
    made.ImageType, made.BodyPartExamined, made.PatientPosition = ["ORIGINAL", "PRIMARY", "M", "SE"], "HEAD", "HFS"
    made.ScanningSequence, made.SequenceVariant, made.ScanOptions, made.MRAcquisitionType = "SE", "NONE", "", "2D"
    made.RepetitionTime, made.EchoTime, made.EchoTrainLength = "500", "15", "1"
    _place(made, pixels)
    return Sent(name=f"{number:04d}.dcm", series=series, object_=one, content=part10(made))


def _place(made: Dataset, pixels: NDArray[np.uint8]) -> None:
    spacing = _FIELD_MM / pixels.shape[0]
    made.PixelSpacing, made.SliceThickness = [spacing, spacing], 5.0
    made.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    made.ImagePositionPatient = [-_FIELD_MM / 2, -_FIELD_MM / 2, 0.0]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
