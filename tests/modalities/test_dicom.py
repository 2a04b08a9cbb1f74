from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tests.modalities.dicom_files import dicom

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.modalities._dicom import read_dicom, read_series


def series(count: int = 5, **fields: object) -> list[tuple[str, bytes]]:
    """Slices 3 mm apart, each filled with its number, in a drawn order."""
    files = [
        (f"{i}.dcm", dicom(np.full((4, 4), i, dtype=np.int16), place=3.0 * i, **fields))  # type: ignore[arg-type]
        for i in range(count)
    ]
    random.Random(0).shuffle(files)
    return files


def test_rescale_gives_hounsfield_units_and_the_range_of_the_stored_bits() -> None:
    one = read_dicom(dicom())
    assert one.values.dtype == np.float32
    assert one.values[0, :3].tolist() == [-24.0, -23.0, -22.0]
    assert one.value_range == (-2048.0 - 24, 2047.0 - 24)


def test_monochrome1_is_turned() -> None:
    plain, turned = read_dicom(dicom()), read_dicom(dicom(PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(turned.values, sum(plain.value_range) - plain.values)


def test_a_series_is_sorted_by_position_not_by_name_or_number() -> None:
    volume, _ = read_series(series())
    assert volume[:, 0, 0].tolist() == [i - 24.0 for i in range(5)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (dicom(PixelData=None), "has no pixel data"),
        (dicom(PixelData=b"\0\0"), "is cut short: 6 x 8 pixels need 96 bytes, 2 are there"),
        (dicom()[:-40], "cut short"),
        (dicom(Rows=60000, Columns=60000), "claims 60000 x 60000 pixels"),
        (dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0), "RGB"),
        (dicom(NumberOfFrames="2"), "holds 2 frames"),
        (dicom(RescaleSlope="0"), "RescaleSlope is 0"),
        (b"text", "no DICOM file"),
        (dicom().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"), "is deflated as a whole"),
    ],
)
def test_what_holds_no_image_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_dicom(content)


def test_mixed_series_are_named() -> None:
    files = [*series(), ("other.dcm", dicom(np.zeros((4, 4), np.int16), place=30.0, series="9.9"))]
    with pytest.raises(ValueError, match=r"mixes series: other\.dcm differ\(s\) from .*SeriesInstanceUID"):
        read_series(files)


def test_mixed_geometries_are_named() -> None:
    files = [*series(), ("wide.dcm", dicom(np.zeros((4, 4), np.int16), place=30.0, PixelSpacing=["5", "5"]))]
    with pytest.raises(ValueError, match=r"mixes geometries: wide\.dcm"):
        read_series(files)


def test_a_missing_slice_is_named_by_its_neighbours() -> None:
    files = [pair for pair in series() if pair[0] != "2.dcm"]
    with pytest.raises(ValueError, match=r"lacks slices between 1\.dcm and 3\.dcm"):
        read_series(files)


def test_two_slices_at_one_place_are_named() -> None:
    files = [*series(), ("twin.dcm", dicom(np.ones((4, 4), np.int16), place=6.0))]
    with pytest.raises(ValueError, match=r"two slices at one place: 2\.dcm and twin\.dcm"):
        read_series(files)


def study(folder: Path, count: int = 20) -> tuple[Path, Path]:
    """A folder of DICOM files of ten patients, and its labels."""
    rng = np.random.default_rng(0)
    (folder / "dicom").mkdir()
    lines = ["image,label,patient_id"]
    for i in range(count):
        pixels = rng.integers(0, 2000, (8, 8)).astype(np.int16)
        (folder / "dicom" / f"{i}.dcm").write_bytes(dicom(pixels))
        lines.append(f"{i}.dcm,{'ill' if i // 2 % 2 else 'healthy'},p{i // 2}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "dicom", folder / "labels.csv"


@pytest.mark.parametrize("name", ["image-folder", "chest-xray"])
def test_a_folder_of_dicom_files_is_read_in_stored_values(tmp_path: Path, name: str) -> None:
    folder, labels = study(tmp_path)
    data = make_modality({"name": name, "folder": str(folder), "labels": str(labels)})()
    assert data.name == name
    assert data.pool is not None
    assert data.pool.x.shape == (20, 1, 8, 8)
    assert data.value_range == (-2072.0, 2023.0)
    assert data.units["grey level"] == 1.0
    assert float(data.pool.x.max()) > 255


def test_a_broken_dicom_file_of_a_folder_is_named(tmp_path: Path) -> None:
    folder, labels = study(tmp_path)
    (folder / "7.dcm").write_bytes(dicom(PixelData=None))
    with pytest.raises(SpecError, match=r"1 of 20 images cannot be read: 7\.dcm \(has no pixel data\)"):
        make_modality({"name": "image-folder", "folder": str(folder), "labels": str(labels)})()


def test_the_same_pixels_under_two_patients_are_named(tmp_path: Path) -> None:
    folder, labels = study(tmp_path)
    (folder / "7.dcm").write_bytes((folder / "1.dcm").read_bytes())
    with pytest.raises(SpecError, match=r"several patients have the same pixels.*1\.dcm and 7\.dcm"):
        make_modality({"name": "image-folder", "folder": str(folder), "labels": str(labels)})()


def test_a_real_series_of_130_slices(titer_data: Path) -> None:
    import zipfile

    with zipfile.ZipFile(titer_data / "dicom_volume" / "t1w_mr_130slices_dicom.zip") as archive:
        files = [(name, archive.read(name)) for name in archive.namelist() if name.endswith(".dcm")]
    volume, _ = read_series(files)
    assert volume.shape == (130, 384, 274)
    random.Random(1).shuffle(files)
    assert np.array_equal(read_series(files)[0], volume)
