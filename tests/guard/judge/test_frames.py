"""Colour and several frames of a file: what a model sees of them, and what is refused with its reason."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from tests.guard.judge.scene import dicom

from titer.guard.judge.bundle import InputPart
from titer.guard.judge.frames import frames_of, pictures
from titer.guard.judge.inputs import image_rows

COLOUR = InputPart(kind="image", shape=(3, 28, 28), value_range=(0.0, 255.0))
GREY = InputPart(kind="image", shape=(1, 28, 28), value_range=(0.0, 255.0))


def _bytes(one: Dataset) -> bytes:
    stream = BytesIO()
    one.save_as(stream)
    return stream.getvalue()


def _bundled(name: str) -> bytes:
    return Path(str(get_testdata_file(name))).read_bytes()


def _rgb(tmp_path: Path, values: np.ndarray, kind: str = "RGB", frames: int = 1) -> bytes:
    """Write colour uint8[(F,) H, W, 3]."""
    one = dcmread(BytesIO(dicom(tmp_path / "one.dcm", values.reshape(-1, *values.shape[-3:])[0, ..., 0], "1.2.3")))
    one.SamplesPerPixel, one.PlanarConfiguration, one.PhotometricInterpretation = 3, 0, kind
    if frames > 1:
        one.NumberOfFrames = frames
    one.PixelData = values.astype(np.uint8).tobytes()
    return _bytes(one)


def _several(tmp_path: Path, count: int) -> Dataset:
    one = dcmread(BytesIO(dicom(tmp_path / "one.dcm", np.zeros((8, 8)), "1.2.3")))
    one.NumberOfFrames = count
    one.PixelData = b"".join(bytes([10 * number]) * 64 for number in range(count))
    return one


def test_a_colour_photograph_keeps_its_channels(tmp_path):
    values = np.zeros((28, 28, 3))
    values[..., 0], values[:, 14:, 1] = 250, 40
    (row,) = image_rows(_rgb(tmp_path, values), COLOUR, 1)
    assert row.shape == (1, 3, 28, 28)
    assert row[0, :, 3, 20].tolist() == pytest.approx([250, 40, 0])
    with pytest.raises(ValueError, match="in colour, and the model takes 1"):
        image_rows(_rgb(tmp_path, values), GREY, 1)


def test_luminance_and_chrominance_become_red_green_and_blue(tmp_path):
    values = np.zeros((8, 8, 3))
    values[...] = (76, 85, 255)  # pure red (PS3.3, C.7.6.3.1.2)
    (found,) = pictures(_rgb(tmp_path, values, "YBR_FULL"), 1)
    assert found.values[:, 4, 4].tolist() == pytest.approx([254, 0, 0], abs=2)


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_ybr_full_422_uncompressed.dcm"]
)
def test_encodings_of_one_picture_look_the_same(name):
    (plain,) = pictures(_bundled("SC_rgb_rle.dcm"), 1)
    (other,) = pictures(_bundled(name), 1)
    assert other.values.shape == plain.values.shape == (3, 100, 100)
    assert np.abs(other.values - plain.values).mean() < 6


def test_a_film_in_colour_is_read_frame_by_frame():
    frames = list(pictures(_bundled("SC_rgb_rle_2frame.dcm"), 2))
    assert [frame.values.shape for frame in frames] == [(3, 100, 100)] * 2
    assert not (frames[0].values == frames[1].values).all()
    assert next(iter(pictures(_bundled("examples_ybr_color.dcm"), 30))).values.shape == (3, 240, 320)
    assert next(iter(pictures(_bundled("SC_rgb_rle_16bit.dcm"), 1))).value_range == (0.0, 65535.0)


def test_a_palette_is_looked_up():
    content = _bundled("examples_palette.dcm")
    (found,) = pictures(content, 1)
    assert found.values.shape[0] == 3
    assert found.value_range[1] in (255.0, 65535.0)
    assert len(np.unique(found.values.reshape(3, -1).T, axis=0)) > 2


def test_every_frame_is_an_input_rescaled_by_its_own_group(tmp_path):
    one = _several(tmp_path, 3)
    groups = []
    for number in range(3):
        rescale, group = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1 + number, -5, "US"
        group.PixelValueTransformationSequence = [rescale]
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
    found = list(pictures(_bytes(one), 3))
    assert [float(frame.values[0, 0, 0]) for frame in found] == [-5, 15, 55]
    assert found[2].value_range == (-5.0, 760.0)
    assert len(image_rows(_bytes(one), GREY, 3)) == 3


def test_inverted_frames_are_turned(tmp_path):
    one = _several(tmp_path, 2)
    one.PhotometricInterpretation = "MONOCHROME1"
    assert [float(frame.values[0, 0, 0]) for frame in pictures(_bytes(one), 2)] == [255, 245]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NumberOfFrames": 9}, "holds 9 frames, allowed are 1 to 4"),
        ({"NumberOfFrames": 4}, "is cut short"),
        ({"NumberOfFrames": -2}, "holds -2 frames"),
        ({"PhotometricInterpretation": "HSV"}, "PhotometricInterpretation = HSV"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel = 3 is not that of MONOCHROME2"),
        ({"BitsAllocated": 32}, "BitsAllocated = 32"),
        ({"Rows": 65535, "Columns": 65535}, "claims 65535 x 65535 pixels"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, change, said):
    one = _several(tmp_path, 3)
    for key, value in change.items():
        setattr(one, key, value)
    with pytest.raises(ValueError, match=said):
        list(pictures(_bytes(one), 4))


def test_a_damaged_stream_is_refused_with_a_reason():
    content = _bundled("SC_rgb_jpeg_dcmtk.dcm")
    with pytest.raises(ValueError, match=r"\w"):
        list(pictures(content[: len(content) // 2], 1))


def test_a_file_counts_as_many_images_as_it_has_frames_up_to_the_cap(tmp_path):
    path = tmp_path / "several.dcm"
    path.write_bytes(_bytes(_several(tmp_path, 3)))
    assert [frames_of(path, most) for most in (2, 3)] == [1, 3]
    path.write_bytes(b"nothing")
    assert frames_of(path, 3) == 1
