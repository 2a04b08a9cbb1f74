"""Small DICOM files of our own."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"


def dicom(pixels: np.ndarray | None = None, *, place: float = 0.0, series: str = "1.2.3", **fields: Any) -> bytes:
    """Return a CT slice of int16 [H, W] at z = `place` mm; `fields` set or, with None, take away header fields."""
    if pixels is None:
        pixels = np.arange(48, dtype=np.int16).reshape(6, 8)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{round(10 * place) + 1000}"
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = CT, meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.Modality, one.PatientID = series, "CT", "nobody"
    one.Rows, one.Columns = pixels.shape
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 1
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.RescaleSlope, one.RescaleIntercept = "1", "-24"
    one.PixelSpacing = ["0.5", "0.5"]
    one.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    one.ImagePositionPatient = ["0", "0", str(place)]
    one.InstanceNumber = "7"
    one.PixelData = pixels.astype("<i2").tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    stream = io.BytesIO()
    one.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
