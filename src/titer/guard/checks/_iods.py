"""What the standard asks of common kinds of objects (PS3.3, A; PS3.4, B.5): modality, and type 1 attributes."""

from __future__ import annotations

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PLACE = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
_PIXELS = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
           "PixelRepresentation", "PixelData")  # fmt: skip

MODALITIES: dict[str, tuple[str, ...]] = {
    _STORAGE + "1": ("CR",),
    _STORAGE + "1.1": ("DX", "PX", "IO", "MG"),
    _STORAGE + "1.1.1": ("DX", "PX", "IO", "MG"),
    _STORAGE + "1.2": ("MG",),
    _STORAGE + "1.2.1": ("MG",),
    _STORAGE + "1.3": ("IO",),
    _STORAGE + "1.3.1": ("IO",),
    _STORAGE + "2": ("CT",),
    _STORAGE + "2.1": ("CT",),
    _STORAGE + "2.2": ("CT",),
    _STORAGE + "3.1": ("US", "IVUS"),
    _STORAGE + "4": ("MR",),
    _STORAGE + "4.1": ("MR",),
    _STORAGE + "4.2": ("MR",),
    _STORAGE + "4.3": ("MR",),
    _STORAGE + "4.4": ("MR",),
    _STORAGE + "6.1": ("US", "IVUS", "BDUS"),
    _STORAGE + "6.2": ("US",),
    _STORAGE + "9.1.1": ("ECG",),
    _STORAGE + "9.1.2": ("ECG",),
    _STORAGE + "11.1": ("PR",),
    _STORAGE + "12.1": ("XA", "DX", "RF"),
    _STORAGE + "12.2": ("RF",),
    _STORAGE + "13.1.1": ("XA", "DX"),
    _STORAGE + "13.1.2": ("DX", "XA"),
    _STORAGE + "13.1.3": ("MG",),
    _STORAGE + "20": ("NM",),
    _STORAGE + "66": ("REG",),
    _STORAGE + "66.4": ("SEG",),
    _STORAGE + "77.1.2": ("GM", "SM"),
    _STORAGE + "77.1.4": ("XC", "DMS"),
    _STORAGE + "77.1.6": ("SM",),
    _STORAGE + "88.11": ("SR",),
    _STORAGE + "88.22": ("SR",),
    _STORAGE + "88.33": ("SR",),
    _STORAGE + "88.34": ("SR",),
    _STORAGE + "88.59": ("KO",),
    _STORAGE + "128": ("PT",),
    _STORAGE + "130": ("PT",),
    _STORAGE + "481.1": ("RTIMAGE",),
    _STORAGE + "481.2": ("RTDOSE",),
    _STORAGE + "481.3": ("RTSTRUCT",),
    _STORAGE + "481.5": ("RTPLAN",),
}
"""Modalities that an object of a SOP class may name; a class that is not here, or captures anything, is not checked."""

REQUIRED: dict[str, tuple[str, ...]] = {
    _STORAGE + "1": _PIXELS,
    _STORAGE + "1.1": (*_PIXELS, "ImageType", "ImagerPixelSpacing", "RescaleIntercept", "RescaleSlope"),
    _STORAGE + "1.2": (*_PIXELS, "ImageType", "ImagerPixelSpacing"),
    _STORAGE + "2": (*_PIXELS, *_PLACE, "ImageType", "RescaleIntercept", "RescaleSlope"),
    _STORAGE + "4": (*_PIXELS, *_PLACE, "ImageType"),
    _STORAGE + "128": (*_PIXELS, *_PLACE, "ImageType", "RescaleIntercept", "RescaleSlope"),
}
"""Attributes of type 1, those that checks and models depend on; the rest of a module's is a validator's business."""

EVERY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
"""Type 1 in every composite object (SOP Common, General Study, General Series)."""
