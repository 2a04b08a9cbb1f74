"""A heat map as a DICOM secondary capture, marked in the picture itself as no basis of a diagnosis."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from PIL import Image, ImageDraw
from pydicom import Dataset

from titer.guard.deliver.headers import MANUFACTURER, finish, header
from titer.guard.deliver.prepare import uid_of

WARNING = "AI EXPLANATION - NOT FOR DIAGNOSIS"
_SERIES_NUMBER = 9902
_METHODS = {"gradcam": "Grad-CAM", "shap": "SHAP"}
_BAND, _LEAST_WIDTH = 18, 256


def capture(body: Mapping[str, Any], image: Path, overlay: Path, uid: str) -> Dataset:
    """Write a secondary capture of an overlay.

    Args:
        body: facts of the verdict, as `results.release` queues them.
        image: file of the image that the overlay is of.
        overlay: the overlay, a PNG.
        uid: SOP instance UID of the capture.
    """
    source = header(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of what it takes over from the image
        made: Any = SCImage(
            pixel_array=_marked(overlay),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=source.StudyInstanceUID,
            series_instance_uid=uid_of("captures", source.SeriesInstanceUID, str(body["input_digest"])),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid,
            instance_number=body["overlay"]["number"],
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "P"),
            **_identity(source),
        )
        finish(made, source, body)
    made.PatientOrientation = None  # the overlay's is that of its source, which is referenced
    made.Laterality = None
    made.Modality = "OT"
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    made.BurnedInAnnotation = "YES"
    made.ImageComments = WARNING
    how = _METHODS[body["overlay"]["method"]]
    made.DerivationDescription = f"Heat map ({how}) of the AI model over the source image; verdict {body['outcome']}"
    made.SeriesDescription = "AI explanation, not for diagnosis"
    made.SourceImageSequence = [_reference(source, body["overlay"]["frame"])]
    document: Dataset = made
    return document


_TAKEN = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "referring_physician_name": "ReferringPhysicianName",
}


def _identity(source: Dataset) -> dict[str, Any]:
    """Return patient and study of the source, as highdicom wants them."""
    return {name: str(source[keyword].value) if source.get(keyword) else None for name, keyword in _TAKEN.items()}


def _reference(source: Dataset, frame: int) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID = source.SOPClassUID
    made.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if int(source.get("NumberOfFrames") or 1) > 1:
        made.ReferencedFrameNumber = frame + 1  # counted from 1 (PS3.3, table 10-3)
    return made


def _marked(overlay: Path) -> Any:
    """Return the overlay with a band of text under it, uint8 [H + 18, W, 3]; a narrow one is centred on black."""
    with Image.open(overlay) as read:
        picture = read.convert("RGB")
    width = max(picture.width, _LEAST_WIDTH)
    sheet = Image.new("RGB", (width, picture.height + _BAND))
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    ImageDraw.Draw(sheet).text((4, picture.height + 3), WARNING, fill=(255, 255, 0))
    return np.asarray(sheet)
