"""T2: what a series shows as a whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from scipy.ndimage import gaussian_filter

from titer.guard.checks.past import NoPast
from titer.guard.checks.series import RULES, check_series
from titer.guard.checks.texture import whiteness
from titer.guard.records import Outcome

Make = Callable[..., list[Path]]


def found(paths: list[Path]) -> set[str]:
    return {one.rule for one in check_series(paths, NoPast()) if one.outcome is not Outcome.PASS}


def test_a_clean_series_has_no_finding_in_any_order_of_its_files(series: Make) -> None:
    paths = series()
    assert found(paths) == set()
    assert found(paths[::-1]) == set()
    assert check_series([], NoPast()) == []


def test_a_missing_slice_is_a_gap(series: Make) -> None:
    paths = series()
    assert "slice-spacing" in found(paths[:10] + paths[11:])


def test_a_slice_that_was_put_in_is_found(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        slices[10].ImagePositionPatient = [-48, -48, 1.5 * 10.5]

    assert "slice-spacing" in found(series(edit))


def test_a_slice_on_another_is_found(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        slices[10].ImagePositionPatient = slices[11].ImagePositionPatient

    assert "slice-spacing" in found(series(edit))


def test_a_slice_that_was_shifted_aside_is_found_and_a_tilted_gantry_is_not(series: Make) -> None:
    def tilted(slices: list[FileDataset]) -> None:
        for number, one in enumerate(slices):
            one.ImagePositionPatient = [-48, -48 + 0.4 * number, 1.5 * number]

    def shifted(slices: list[FileDataset]) -> None:
        slices[10].ImagePositionPatient = [-40, -48, 15]

    assert found(series(tilted, "tilted")) == set()
    assert "slice-line" in found(series(shifted, "shifted"))


def test_shuffled_numbers_are_found(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        slices[3].InstanceNumber, slices[9].InstanceNumber = slices[9].InstanceNumber, slices[3].InstanceNumber

    assert "slice-numbers" in found(series(edit))


def test_reversed_numbers_run_against_the_times_of_the_slices(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for number, one in enumerate(slices):
            one.InstanceNumber = len(slices) - number

    assert found(series(edit)) == {"slice-witnesses"}


@pytest.mark.parametrize(
    ("keyword", "value", "rule"),
    [
        ("RescaleIntercept", 200, "series-shared"),
        ("PixelSpacing", [10, 10], "series-shared"),
        ("PhotometricInterpretation", "MONOCHROME1", "series-shared"),
        ("Laterality", "L", "series-shared"),
        ("FrameOfReferenceUID", "1.2.3", "series-shared"),
        ("PatientID", "2", "series-patient"),
        ("PatientSex", "M", "series-patient"),
    ],
)
def test_one_object_that_differs_is_found(keyword: str, value: object, rule: str, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        setattr(slices[7], keyword, value)

    assert rule in found(series(edit))


def test_two_objects_of_one_uid_are_blocked(series: Make) -> None:
    paths = series()
    copy = paths[0].with_name("copy.dcm")
    copy.write_bytes(paths[7].read_bytes())
    findings = [one for one in check_series([*paths, copy], NoPast()) if one.rule == "series-uids"]
    assert [one.outcome for one in findings] == [Outcome.BLOCK]


def test_a_slice_of_another_orientation_is_found(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        slices[7].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    assert "series-orientation" in found(series(edit))


def test_a_series_that_begins_after_its_objects_is_found(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.SeriesTime = "112000"

    assert found(series(edit)) == {"series-times"}


def _bump(one: FileDataset, height: float) -> None:
    values = np.frombuffer(one.PixelData, "<i2").reshape(96, 96).astype(float)
    rows, columns = np.mgrid[:96, :96]
    distance = np.hypot(rows - 40, columns - 50) / 8
    values += height * np.where(distance < 1, (1 + np.cos(np.pi * distance)) / 2, 0)
    one.PixelData = values.astype("<i2").tobytes()


@pytest.mark.parametrize("height", [300, -300])
def test_a_lesion_in_one_slice_is_found_at_its_place(height: float, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        _bump(slices[11], height)

    findings = [one for one in check_series(series(edit), NoPast()) if one.rule == "slice-outlier"]
    assert [one.outcome for one in findings] == [Outcome.FLAG]
    assert findings[0].evidence["slice"] == 11
    assert abs(findings[0].evidence["row"] - 40) <= 8
    assert abs(findings[0].evidence["column"] - 50) <= 8


def test_a_lesion_through_many_slices_is_anatomy(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for number, one in enumerate(slices):
            _bump(one, 300 * np.exp(-(((number - 11) / 5) ** 2)))

    assert found(series(edit)) == set()


def smooth(slices: list[FileDataset]) -> None:
    """Smear the noise over neighbours, as reconstruction does."""
    for one in slices:
        values = gaussian_filter(np.frombuffer(one.PixelData, "<i2").reshape(96, 96).astype(float), 0.8)
        one.PixelData = values.astype("<i2").tobytes()


def test_a_place_that_was_painted_over_is_found_where_it_is(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        smooth(slices)
        values = np.frombuffer(slices[8].PixelData, "<i2").reshape(96, 96).astype(float)
        rows, columns = np.mgrid[:96, :96]
        grain = 8 * np.random.default_rng(3).standard_normal(values.shape)
        painted = np.where(np.hypot(rows - 60, columns - 40) < 9, 450 + grain, values)
        slices[8].PixelData = painted.astype("<i2").tobytes()

    assert "slice-texture" not in found(series(smooth, "clean"))
    findings = [one for one in check_series(series(edit), NoPast()) if one.rule == "slice-texture"]
    assert [(one.outcome, one.evidence["slice"]) for one in findings] == [(Outcome.FLAG, 8)]
    assert np.hypot(findings[0].evidence["row"] - 60, findings[0].evidence["column"] - 40) < 9


def test_whiteness_tells_white_noise_from_smeared_noise() -> None:
    white = 500 + 20 * np.random.default_rng(4).standard_normal((96, 96))
    white[:20] = 0
    assert 0.6 < np.median(whiteness(white)[40:80, 20:76]) < 1.1
    assert np.median(whiteness(gaussian_filter(white, 1))[40:80, 20:76]) < 0.4


def test_a_mirrored_slice_does_not_fit(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        values = np.frombuffer(slices[11].PixelData, "<i2").reshape(96, 96)
        slices[11].PixelData = np.roll(values[::-1], 9, axis=1).tobytes()

    assert "slice-outlier" in found(series(edit))


def test_thick_slices_are_told_to_be_too_thick(series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        rng = np.random.default_rng(0)
        for one in slices:
            _bump(one, float(rng.choice([-400, 400])))
            values = np.frombuffer(one.PixelData, "<i2").reshape(96, 96)
            one.PixelData = np.roll(values, rng.integers(-20, 20, 2), axis=(0, 1)).tobytes()

    findings = [one for one in check_series(series(edit), NoPast()) if "too thick" in one.reason]
    assert [one.outcome for one in findings] == [Outcome.PASS]


def test_a_file_that_cannot_be_read_blocks(series: Make) -> None:
    paths = series()
    paths[3].write_bytes(b"no DICOM at all")
    assert [one.outcome for one in check_series(paths, NoPast())] == [Outcome.BLOCK]


def test_names_of_series_rules_are_used_once() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
