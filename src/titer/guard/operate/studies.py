"""Studies for the demo: chest radiographs as a modality would send them, and tampered copies of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from shutil import which

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from titer.core.errors import SpecError
from titer.core.plugins import make_tamper
from titer.core.randomness import generator

_ENLARGED = 16
_NOISE = 2.0
_SEND_SECONDS = 60
TAMPERS: tuple[Mapping[str, object], ...] = (
    {"name": "pixel-spacing"},
    {"name": "patient-id-swap", "patient_id": "DEMO-OTHER"},
)
"""What the demo's attacker does to the second study, one image each; the images after them stay as they are."""


def study(images: Sequence[NDArray[np.uint8]], name: str, at: datetime | None = None) -> dict[str, bytes]:
    """Return one study of computed radiographs as DICOM files, by file name.

    Args:
        images: grey levels [H, W], 0 to 255; enlarged to a size that can be looked at.
        name: makes UIDs and the patient's id, the same each time.
        at: when the study was made, one moment for all of its objects; now where None.
    """
    made = at or datetime.now(UTC)
    uids = [generate_uid(entropy_srcs=["titer demo", name, part]) for part in ("study", "series")]
    return {
        f"{name}-{number}.dcm": part10(_dataset(image, name, number, uids, made))
        for number, image in enumerate(images, start=1)
    }


def tampered(files: Mapping[str, bytes], seed: int = 0) -> dict[str, bytes]:
    """Return the files with each of `TAMPERS` done to one of them."""
    done = dict(files)
    for spec, name in zip(TAMPERS, list(files)[1:], strict=False):
        attack = make_tamper(dict(spec), "demo")
        done |= attack({name: files[name]}, rng=generator(seed, "demo", name)).files
    return done


def send(files: Mapping[str, bytes], folder: Path, address: str, ae_title: str) -> None:
    """Send files by DCMTK's storescu, as a modality does.

    Raises:
        SpecError: DCMTK is not installed.
    """
    program = which("storescu")
    if program is None:
        raise SpecError("storescu is not installed: apt-get install dcmtk")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    host, _, port = address.rpartition(":")
    paths = [str(folder / name) for name in files]
    # A refused object is a part of the demo: the others are sent all the same.
    subprocess.run(  # noqa: S603 - a program of this machine, and our own files
        [program, "--no-halt", "-aet", "DEMO-CR", "-aec", ae_title, host, port, *paths],
        check=False,
        capture_output=True,
        timeout=_SEND_SECONDS,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def _dataset(image: NDArray[np.uint8], name: str, number: int, uids: Sequence[str], at: datetime) -> Dataset:
    height, width = image.shape
    enlarged = Image.fromarray(image).resize((width * _ENLARGED, height * _ENLARGED), Image.Resampling.BICUBIC)
    # An enlarged image alone is smoother than any that a machine makes.
    noise = np.random.default_rng(number).normal(scale=_NOISE, size=enlarged.size[::-1])
    pixels = np.clip(np.asarray(enlarged) + noise, 0, 255).round().astype(np.uint8)
    made = Dataset()
    made.SOPClassUID = ComputedRadiographyImageStorage
    made.SOPInstanceUID = generate_uid(entropy_srcs=["titer demo", name, str(number)])
    made.StudyInstanceUID, made.SeriesInstanceUID = uids
    made.PatientID, made.PatientName = f"DEMO-{name.upper()}", f"Demo^{name.title()}"
    made.PatientBirthDate, made.PatientSex = "", ""
    made.StudyDate = made.SeriesDate = made.ContentDate = at.strftime("%Y%m%d")
    made.StudyTime = made.SeriesTime = made.ContentTime = at.strftime("%H%M%S")
    made.AccessionNumber, made.ReferringPhysicianName, made.StudyID = "", "", "1"
    made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "CR", "Titer demo", 1, number
    made.BodyPartExamined, made.ViewPosition, made.PatientOrientation = "CHEST", "PA", ["L", "F"]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.ImagerPixelSpacing = [0.4, 0.4]
    made.PixelData = pixels.tobytes()
    return made


def part10(dataset: Dataset) -> bytes:
    """Return a dataset as a DICOM file (PS3.10) in Explicit VR Little Endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
