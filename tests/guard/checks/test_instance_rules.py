"""T1: what one object shows by itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from titer.core.plugins import make_tamper
from titer.guard.checks.grey import rectangle
from titer.guard.checks.instance import RULES, check_instance
from titer.guard.checks.past import NoPast
from titer.guard.records import Outcome


def found(path: Path) -> set[str]:
    return {one.rule for one in check_instance(path, NoPast()) if one.outcome is not Outcome.PASS}


def bundled(name: str) -> bytes:
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


def test_clean_objects_of_three_makers_have_no_finding(series: Callable[..., list[Path]]) -> None:
    assert found(series()[5]) == set()
    for name in ("CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm"):
        assert found(Path(str(get_testdata_file(name, download=False)))) == set()


CHANGES: dict[str, tuple[str, Callable[[FileDataset], object]]] = {
    "another modality": ("modality", lambda one: setattr(one, "Modality", "CT")),
    "no orientation": ("required", lambda one: delattr(one, "ImageOrientationPatient")),
    "a sex that is no code": ("value-form", lambda one: setattr(one, "PatientSex", "female?")),
    "an undefined character set": ("character-set", lambda one: setattr(one, "SpecificCharacterSet", "ISO_IR 999")),
    "a study before the birth": ("dates", lambda one: setattr(one, "PatientBirthDate", "20210101")),
    "a study in the future": ("dates", lambda one: setattr(one, "StudyDate", "21990101")),
    "the age of somebody else": ("age", lambda one: setattr(one, "PatientBirthDate", "19480305")),
    "more bits stored than allocated": ("pixel-form", lambda one: setattr(one, "BitsStored", 17)),
    "rows that are not there": ("pixel-form", lambda one: setattr(one, "Rows", 960)),
    "a window of no width": ("window", lambda one: setattr(one, "WindowWidth", 0)),
    "a slanted orientation": ("axes", lambda one: setattr(one, "ImageOrientationPatient", [1, 0.2, 0, 0, 1, 0])),
    "a position in the next town": ("place", lambda one: setattr(one, "ImagePositionPatient", [1e6, 0, 0])),
    "pixels ten times as large": ("field-of-view", lambda one: setattr(one, "PixelSpacing", [10, 10])),
    "a spacing of nothing": ("field-of-view", lambda one: setattr(one, "PixelSpacing", [0, 0])),
    "a circle too small": ("reconstruction-diameter", lambda one: setattr(one, "ReconstructionDiameter", 40)),
    "a thickness below nothing": ("thickness", lambda one: setattr(one, "SliceThickness", -1)),
    "letters against numbers": ("directions", lambda one: setattr(one, "PatientOrientation", ["R", "P"])),
    "a negative": ("background", lambda one: setattr(one, "PhotometricInterpretation", "MONOCHROME1")),
    "a lifted zero": ("rescale", lambda one: setattr(one, "RescaleIntercept", 200)),
    "a side of the head": ("paired-part", lambda one: one.update({"BodyPartExamined": "HEAD", "Laterality": "L"})),
    "two sides": ("one-side", lambda one: one.update({"Laterality": "L", "SeriesDescription": "knee right"})),
    "a UID of letters": ("uids", lambda one: setattr(one, "StudyInstanceUID", "1.2.x")),
    "a program in a private value": ("programs", lambda one: one.add_new(0x00091010, "OB", b"\x7fELF" + bytes(200))),
    "a large random private value": (
        "private-values",
        lambda one: one.add_new(0x00091010, "OB", np.random.default_rng(0).bytes(60_000)),
    ),
    "content after the image": ("trailing-padding", lambda one: one.add_new(0xFFFCFFFC, "OB", b"abcd" * 2000)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_found_by_its_rule(what: str, series: Callable[..., list[Path]]) -> None:
    rule, change = CHANGES[what]

    def edit(slices: list[FileDataset]) -> None:
        change(slices[5])

    path = series(edit)[5]
    assert rule in found(path)


@pytest.mark.parametrize("form", ["pe", "elf"])
def test_a_program_in_the_preamble_is_blocked(form: str, tmp_path: Path) -> None:
    made = make_tamper({"name": "preamble-executable", "form": form})(
        {"a": bundled("CT_small.dcm")}, rng=torch.Generator()
    )
    path = tmp_path / "a.dcm"
    path.write_bytes(made.files["a"])
    assert [one.outcome for one in check_instance(path, NoPast()) if one.rule == "preamble"] == [Outcome.BLOCK]


def test_the_preamble_of_a_tiff_file_is_allowed_and_other_text_is_not(tmp_path: Path) -> None:
    content = bundled("CT_small.dcm")
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    assert content[:4] == b"II*\0"
    assert "preamble" not in found(path)
    path.write_bytes(b"alert('x');".ljust(128, b"\0") + content[128:])
    assert "preamble" in found(path)


def test_a_mammogram_of_the_other_breast_is_found(series: Callable[..., list[Path]]) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one, told in zip(slices, (["A", "R"], ["A", "L"], ["P", "L"]), strict=False):
            one.Modality, one.ImageLaterality, one.PatientOrientation = "MG", "L", told

    paths = series(edit)
    assert ["breast-side" in found(path) for path in paths[:3]] == [False, True, True]


def test_water_at_200_hounsfield_units_is_found(tmp_path: Path) -> None:
    made = make_tamper({"name": "rescale"})({"a": bundled("CT_small.dcm")}, rng=torch.Generator())
    path = tmp_path / "a.dcm"
    path.write_bytes(made.files["a"])
    assert "rescale" in found(path)


def test_a_filled_square_is_found_wherever_it_lies_inside() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        image = rng.integers(0, 50, (80, 70))
        top, left = rng.integers(1, 60), rng.integers(1, 50)
        image[top : top + 16, left : left + 16] = 255
        assert rectangle(image) == (top, left, 16, 16)


def test_what_is_no_square_is_none() -> None:
    rows, columns = np.mgrid[:80, :80]
    disc = np.where(np.hypot(rows - 40, columns - 40) < 15, 200, (rows * 7 + columns * 3) % 50)
    assert rectangle(disc) is None
    assert rectangle(np.zeros((80, 80))) is None
    bars = np.where(columns < 10, 0, (rows * 7 + columns * 3) % 50 + 1)
    assert rectangle(bars) is None


def test_a_flat_place_of_an_enlarged_image_is_no_rectangle() -> None:
    """Enlarging 28 pixels to 448 leaves flat places of rectangular shape, one grey level from what is around them."""
    rng = np.random.default_rng(3)
    for _ in range(6):
        small = Image.fromarray(rng.integers(60, 190, (28, 28), dtype=np.uint8))
        assert rectangle(np.asarray(small.resize((448, 448), Image.Resampling.BICUBIC))) is None


def test_a_rule_that_cannot_read_a_value_says_so(series: Callable[..., list[Path]], tmp_path: Path) -> None:
    content = series()[5].read_bytes()
    place = content.index(b"\x28\x00\x30\x00DS")
    path = tmp_path / "bad.dcm"
    path.write_bytes(content[: place + 8] + b"x\\y " + content[place + 12 :])
    findings = check_instance(path, NoPast())
    assert any("malformed" in one.reason and one.outcome is Outcome.FLAG for one in findings)


def test_no_reason_holds_a_value_of_the_patient(series: Callable[..., list[Path]]) -> None:
    def edit(slices: list[FileDataset]) -> None:
        slices[5].update({"PatientName": "SECRET^NAME", "PatientID": "SECRETID", "PatientBirthDate": "19480305"})
        slices[5].PatientSex = "SECRETSEX!"
        slices[5].SpecificCharacterSet = "ISO_IR 192"

    findings = check_instance(series(edit)[5], NoPast())
    assert findings
    assert "SECRET" not in repr(findings)
    assert "19480305" not in repr(findings)


def test_names_of_rules_are_used_once() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
