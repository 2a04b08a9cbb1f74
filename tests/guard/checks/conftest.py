"""A small MR series that a scanner could have sent: an oval head whose inside changes slowly from slice to slice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from titer.guard.checks.loaded import quiet
from titer.guard.checks.past import NoPast

SLICES, SIDE = 16, 96
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
Edit = Callable[[list[FileDataset]], None]


def head(number: int) -> np.ndarray:
    """Return a slice, int16[96, 96]."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    height = number / SLICES - 0.5
    inside = (rows / 0.85) ** 2 + (columns / 0.7) ** 2 < 1 - height**2
    tissue = 400 + 150 * np.sin(5 * rows + 3 * height) * np.cos(4 * columns - 2 * height)
    return np.clip(np.where(inside, tissue, 0) + 12 * rng.standard_normal(rows.shape), 0, 4000).astype(np.int16)


def slice_of(number: int, series: str, study: str) -> FileDataset:
    """Return one object with the header of an original axial MR slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MR_STORAGE
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("slice", Dataset(), file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.SOPInstanceUID = MR_STORAGE, meta.MediaStorageSOPInstanceUID
    one.StudyInstanceUID, one.SeriesInstanceUID = study, series
    one.FrameOfReferenceUID = generate_uid(entropy_srcs=[study, "frame"])
    one.ImageType, one.Modality = ["ORIGINAL", "PRIMARY", "M", "SE"], "MR"
    one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = "20200202"
    one.StudyTime, one.SeriesTime = "100000", "100500"
    one.AcquisitionTime = one.ContentTime = f"1006{2 * number:02d}"
    one.Manufacturer, one.ManufacturerModelName, one.StationName = "MAKER", "MODEL", "MR1"
    one.ProtocolName = "t1"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "A^B", "1", "19700505", "F"
    one.PatientAge = "049Y"
    one.SeriesNumber, one.InstanceNumber = 2, number + 1
    one.ImagePositionPatient, one.ImageOrientationPatient = [-48, -48, 1.5 * number], [1, 0, 0, 0, 1, 0]
    one.SliceThickness, one.SpacingBetweenSlices, one.SliceLocation = 1.5, 1.5, 1.5 * number
    one.PixelSpacing, one.Rows, one.Columns = [1, 1], SIDE, SIDE
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.RescaleSlope, one.RescaleIntercept, one.WindowCenter, one.WindowWidth = 1, 0, 400, 600
    one.PixelData = head(number).tobytes()
    return one


def write(folder: Path, slices: list[FileDataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, one in enumerate(slices):
        paths.append(folder / f"{number:03d}.dcm")
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write a series, after a change where one is wanted; another `name` is another series of the device."""

    def make(edit: Edit | None = None, name: str = "one", study: str = "study") -> list[Path]:
        uids = [generate_uid(entropy_srcs=[part]) for part in (name, study)]
        slices = [slice_of(number, uids[0], uids[1]) for number in range(SLICES)]
        with quiet():
            if edit is not None:
                edit(slices)
            return write(tmp_path / "series" / name, slices)

    return make


@pytest.fixture
def nothing() -> NoPast:
    return NoPast()
