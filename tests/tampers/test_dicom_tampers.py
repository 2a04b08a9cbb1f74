"""Each DICOM tamper: the output reads, what is claimed changed and nothing else did, and the stock check is blind."""

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import UID

from titer.core.errors import Incompatible
from titer.core.plugins import make_tamper


def _run(files, name, seed=0, **settings):
    before = dict(files)
    done = make_tamper({"name": name, **settings})(files, rng=torch.Generator().manual_seed(seed))
    again = make_tamper({"name": name, **settings})(files, rng=torch.Generator().manual_seed(seed))
    assert files == before, "the input is never changed"
    assert done.files == again.files, "the same seed gives the same bytes"
    assert done.changed == again.changed
    assert done.changed
    return done


def _strict(content):
    """Read with the stock reader, every value checked against the standard and every pixel decoded."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    list(dataset.iterall())
    assert dataset.pixel_array.size
    return dataset


def _complaints(content):
    """What the stock reader says against the values of a file; real files are not free of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _strict(content)
    return {str(one.message) for one in caught}


@pytest.fixture(autouse=True)
def _stock_reader_warns():
    """Complaints are counted by the tests that compare them, and are no errors elsewhere."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def _differing(before, after):
    """The keywords whose elements differ between two files."""
    first, second = pydicom.dcmread(io.BytesIO(before)), pydicom.dcmread(io.BytesIO(after))
    assert first.file_meta == second.file_meta
    tags = {element.tag for element in first} | {element.tag for element in second}
    return {pydicom.datadict.keyword_for_tag(tag) for tag in tags if first.get(tag) != second.get(tag)}


def _place(dataset):
    row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(dataset.ImagePositionPatient, dtype=float))


def _geometry(files):
    """The stock check of a series: one size, unique UIDs, and slices at even distances."""
    datasets = [pydicom.dcmread(io.BytesIO(content)) for content in files.values()]
    assert len({(one.Rows, one.Columns, one.SeriesInstanceUID) for one in datasets}) == 1
    assert len({one.SOPInstanceUID for one in datasets}) == len(datasets)
    assert all(UID(one.SOPInstanceUID).is_valid for one in datasets)
    places = np.diff(sorted(_place(one) for one in datasets))
    assert np.allclose(places, places[0], rtol=0.01)
    numbers = sorted(int(one.InstanceNumber) for one in datasets)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


HEADERS = {
    "modality-swap": ("volume", {"Modality"}),
    "laterality-flip": ("volume", {"PatientOrientation"}),
    "pixel-spacing": ("volume", {"PixelSpacing"}),
    "rescale": ("volume", {"RescaleIntercept"}),
    "photometric-flip": ("volume", {"PhotometricInterpretation"}),
    "instance-order": ("volume", {"InstanceNumber"}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_tamper_changes_its_own_elements_and_passes_strict_reading_and_geometry(name, request):
    fixture, keywords = HEADERS[name]
    files = request.getfixturevalue(fixture)
    done = _run(files, name)
    assert set(done.files) == set(files)
    changed = [one for one in files if done.files[one] != files[one]]
    assert len(changed) == len(done.changed)
    assert len(changed) >= len(files) - 1  # the middle of an odd series keeps its number
    for one in changed:
        assert _differing(files[one], done.files[one]) == keywords
    for one, content in done.files.items():
        assert _complaints(content) <= _complaints(files[one])
    _geometry(done.files)


def test_patients_change_places_and_every_file_agrees_with_itself(two_patients):
    done = _run(two_patients, "patient-id-swap")
    ids = {name: pydicom.dcmread(io.BytesIO(content)) for name, content in two_patients.items()}
    for name, content in done.files.items():
        dataset = pydicom.dcmread(io.BytesIO(content))
        other = ids["MR_small.dcm" if name == "CT_small.dcm" else "CT_small.dcm"]
        assert (dataset.PatientID, dataset.PatientName) == (other.PatientID, other.PatientName)
        assert _differing(two_patients[name], content) <= {"PatientID", "PatientName", "PatientBirthDate", "PatientSex"}
        assert dataset.pixel_array.size


def test_one_patient_gets_another_id_or_is_refused(volume):
    done = _run(volume, "patient-id-swap", patient_id="03")
    assert all(_differing(volume[name], content) == {"PatientID"} for name, content in done.files.items())
    _geometry(done.files)
    with pytest.raises(Incompatible, match="two patients"):
        make_tamper("patient-id-swap")(volume, rng=torch.Generator())


def test_two_series_change_places(two_patients):
    done = _run(two_patients, "series-order")
    before = {name: pydicom.dcmread(io.BytesIO(content)) for name, content in two_patients.items()}
    after = {name: pydicom.dcmread(io.BytesIO(content)) for name, content in done.files.items()}
    assert {one.SeriesInstanceUID for one in before.values()} == {one.SeriesInstanceUID for one in after.values()}
    for name in two_patients:
        assert _differing(two_patients[name], done.files[name]) <= {"SeriesNumber", "SeriesDate", "SeriesTime"}
    assert after["CT_small.dcm"].SeriesTime == before["MR_small.dcm"].SeriesTime


def test_lengths_are_ten_times_what_they_were(volume, ct):
    for files in (volume, ct):
        for name, content in _run(files, "pixel-spacing").files.items():
            before, after = (pydicom.dcmread(io.BytesIO(one)).PixelSpacing for one in (files[name], content))
            assert np.allclose(np.array(after, dtype=float), 10 * np.array(before, dtype=float), rtol=1e-9)


def test_hounsfield_units_shift_and_no_pixel_does(ct):
    content = _run(ct, "rescale", slope=2.0).files["CT_small.dcm"]
    before, after = (pydicom.dcmread(io.BytesIO(one)) for one in (ct["CT_small.dcm"], content))
    assert float(after.RescaleSlope) == 2 * float(before.RescaleSlope)
    assert float(after.RescaleIntercept) == 200 + float(before.RescaleIntercept)
    assert after.PixelData == before.PixelData


@pytest.mark.parametrize("order", ["reverse", "shuffle"])
def test_slices_are_numbered_otherwise_than_they_lie(order, volume):
    done = _run(volume, "instance-order", order=order)
    datasets = sorted((pydicom.dcmread(io.BytesIO(one)) for one in done.files.values()), key=_place)
    numbers = [int(one.InstanceNumber) for one in datasets]
    assert numbers != sorted(numbers)
    assert order == "shuffle" or numbers == sorted(numbers, reverse=True) or numbers == sorted(numbers)[::-1]


@pytest.mark.parametrize("name", ["slice-lesion-add", "slice-lesion-remove"])
def test_a_lesion_comes_or_goes_in_one_slice_and_the_series_stays_a_series(name, volume):
    done = _run(volume, name, slice=2, radius=10)
    changed = [one for one in volume if done.files[one] != volume[one]]
    assert len(changed) == 1
    order = sorted(volume, key=lambda one: _place(pydicom.dcmread(io.BytesIO(volume[one]))))
    assert changed == [order[2]]
    assert _differing(volume[changed[0]], done.files[changed[0]]) == {"PixelData"}
    before, after = (_strict(files[changed[0]]).pixel_array.astype(int) for files in (volume, done.files))
    places = np.argwhere(before != after)
    assert 20 < len(places) <= np.pi * 10**2 + 40
    assert (np.ptp(places, axis=0) <= 20).all()
    _geometry(done.files)


def test_an_added_lesion_is_brightest_in_its_middle_and_fades_into_what_is_around(volume):
    done = _run(volume, "slice-lesion-add", radius=12, contrast=0.6)
    name = next(one for one in volume if done.files[one] != volume[one])
    change = _strict(done.files[name]).pixel_array.astype(int) - _strict(volume[name]).pixel_array
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert change.min() >= 0
    assert change[row, column] > 3 * change[row, column + 8] > 0
    assert change[row, column + 11] <= 0.05 * change.max()


def test_a_bright_disc_goes_and_its_rim_stays(volume):
    files = _run(volume, "slice-lesion-add", slice=3, radius=8, contrast=1.0, seed=5).files
    name = next(one for one in volume if files[one] != volume[one])
    lesion = _strict(files[name]).pixel_array.astype(int) - _strict(volume[name]).pixel_array
    row, column = (int(one) for one in np.unravel_index(lesion.argmax(), lesion.shape))
    cleaned = _run(files, "slice-lesion-remove", slice=3, row=row, column=column, radius=9).files
    left = np.abs(_strict(cleaned[name]).pixel_array.astype(int) - _strict(volume[name]).pixel_array)
    assert left[row, column] < 0.4 * lesion.max()


def test_the_lesion_of_another_seed_lies_elsewhere(volume):
    assert _run(volume, "slice-lesion-add", seed=1).files != _run(volume, "slice-lesion-add", seed=2).files


def test_a_patch_is_one_square_in_every_file(ct, volume):
    for files in (ct, volume):
        done = _run(files, "pixel-patch", size=9)
        for name, content in done.files.items():
            assert _differing(files[name], content) == {"PixelData"}
            before, after = _strict(files[name]).pixel_array, _strict(content).pixel_array
            places = np.argwhere(before != after)
            assert (np.ptp(places, axis=0) <= 8).all()
            assert set(after[before != after].tolist()) == {int(before.max())}
            assert len(content) == len(files[name])


def test_two_images_have_one_uid_and_each_reads(volume):
    done = _run(volume, "duplicate-uid")
    assert len(done.files) == len(volume) + 1
    assert all(done.files[name] == content for name, content in volume.items())
    copy = next(name for name in done.files if name not in volume)
    original = copy.replace("-duplicate", "")
    first, second = _strict(done.files[original]), _strict(done.files[copy])
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert (np.fliplr(first.pixel_array) == second.pixel_array).all()


@pytest.mark.parametrize(("form", "magic"), [("pe", b"MZ"), ("elf", b"\x7fELF")])
def test_the_preamble_passes_for_a_program_and_the_data_set_is_untouched(form, magic, ct, tmp_path):
    content = _run(ct, "preamble-executable", form=form).files["CT_small.dcm"]
    assert content.startswith(magic)
    assert content[128:] == ct["CT_small.dcm"][128:]
    _strict(content)
    program = tmp_path / "program"
    program.write_bytes(content)
    assert content[60:64] == b"\0\0\0\0", "no pointer to a program"
    assert content[24:40].count(0) >= 8, "no entry point"


def test_compressed_colour_and_foreign_files_are_refused_by_name():
    from pydicom.data import get_testdata_file

    compressed = {"jpeg.dcm": Path(str(get_testdata_file("JPEG2000.dcm", download=False))).read_bytes()}
    for name in ("pixel-patch", "duplicate-uid"):
        with pytest.raises(Incompatible, match=r"jpeg\.dcm is compressed"):
            make_tamper(name)(compressed, rng=torch.Generator())
    with pytest.raises(Incompatible, match=r"note\.txt is no DICOM file"):
        make_tamper("modality-swap")({"note.txt": b"hello" * 100}, rng=torch.Generator())
