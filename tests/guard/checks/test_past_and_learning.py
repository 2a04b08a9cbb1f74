"""What the database knows of UIDs, patients and devices, and what may become usual."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from sqlalchemy import Connection, insert, select

from titer.guard.checks.instance import check_instance
from titer.guard.checks.loaded import load
from titer.guard.checks.past import DatabasePast
from titer.guard.checks.series import check_series, learning
from titer.guard.context import Context
from titer.guard.keys import pseudonym
from titer.guard.records import Finding, Outcome
from titer.guard.store.tables import objects

Make = Callable[..., list[Path]]


@contextmanager
def past(context: Context) -> Iterator[DatabasePast]:
    with context.engine.connect() as connection:
        yield DatabasePast(connection, context.identity)


def stored(context: Context, paths: list[Path]) -> None:
    """Put objects into the table as the receiving part does."""

    def step(connection: Connection) -> None:
        for path in paths:
            one = load(path)
            row = {
                "sop_instance_uid": one.text("SOPInstanceUID"),
                "sop_class_uid": one.text("SOPClassUID"),
                "study_instance_uid": one.text("StudyInstanceUID"),
                "series_instance_uid": one.text("SeriesInstanceUID"),
                "transfer_syntax_uid": one.syntax,
                "digest": one.digest,
                "pixel_digest": one.pixel_digest,
                "patient": pseudonym(context.identity, one.text("PatientID"), ""),
                "modality": "MR",
                "size": one.size,
                "path": str(path),
                "route": "all",
                "calling_ae": "TEST",
                "peer": "127.0.0.1",
                "received_at": 0.0,
                "state": "received",
            }
            connection.execute(insert(objects).values(**row))

    context.journal.write(step)


def learned(context: Context, paths: list[Path]) -> None:
    context.journal.write(learning(context.identity, paths))


def held(findings: list[Finding]) -> dict[str, Outcome]:
    return {one.rule: one.outcome for one in findings if one.outcome is not Outcome.PASS}


def test_an_object_that_came_again_unchanged_is_no_finding(context: Context, series: Make) -> None:
    paths = series()
    stored(context, paths)
    with past(context) as known:
        assert held(check_instance(paths[4], known)) == {}


def test_other_pixels_under_a_uid_are_blocked_and_another_header_is_flagged(context: Context, series: Make) -> None:
    paths = series()
    stored(context, paths)
    dataset = dcmread(paths[4])
    dataset.PixelData = dataset.PixelData[::-1]
    dataset.save_as(paths[4])
    dataset = dcmread(paths[5])
    dataset.SeriesDescription = "corrected"
    dataset.save_as(paths[5])
    with past(context) as known:
        assert held(check_instance(paths[4], known)) == {"same-uid": Outcome.BLOCK}
        assert held(check_instance(paths[5], known)) == {"same-uid": Outcome.FLAG}


def test_a_second_patient_in_a_study_is_blocked(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.PatientID = "2"

    stored(context, series())
    other = series(edit, "two")
    with past(context) as known:
        assert held(check_instance(other[4], known)) == {"patient": Outcome.BLOCK}


def test_a_device_is_known_after_five_series(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.RescaleIntercept = -3

    odd = series(edit, "odd")
    for number in range(5):
        with past(context) as known:
            assert "device" not in held(check_instance(odd[4], known))
        learned(context, series(None, f"series {number}"))
    with past(context) as known:
        assert held(check_instance(odd[4], known)) == {"device": Outcome.FLAG}
        assert held(check_instance(series(None, "next")[4], known)) == {}


def test_a_field_of_view_that_changes_with_the_patient_is_usual(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.PixelSpacing = [1.2, 1.2]

    for number in range(6):
        learned(context, series(None, f"series {number}"))
    with past(context) as known:
        assert held(check_instance(series(edit, "large")[4], known)) == {}


def test_numbers_that_grow_the_other_way_than_always_are_found(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for number, one in enumerate(slices):
            one.InstanceNumber = len(slices) - number
            del one.AcquisitionTime, one.ContentTime

    turned = series(edit, "turned")
    with past(context) as known:
        assert held(check_series(turned, known)) == {}
    for number in range(5):
        learned(context, series(None, f"series {number}"))
    with past(context) as known:
        assert held(check_series(turned, known)) == {"number-direction": Outcome.FLAG}


def test_a_habit_of_a_device_is_no_finding_after_three_series_that_were_accepted(
    context: Context, series: Make
) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.PatientOrientation = ["L", "R"]

    def flipped(slices: list[FileDataset]) -> None:
        for one in slices:
            one.PatientOrientation = ["R", "L"]

    for number in range(3):
        paths = series(edit, f"habit {number}")
        with past(context) as known:
            assert held(check_instance(paths[4], known)) == {"directions": Outcome.FLAG}
        learned(context, paths)
    with past(context) as known:
        assert held(check_instance(series(edit, "next")[4], known)) == {}
        assert "directions" in held(check_instance(series(flipped, "flipped")[4], known))


def test_what_is_blocked_never_becomes_a_habit(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.preamble = b"MZ".ljust(128, b"\0")

    for number in range(6):
        learned(context, series(edit, f"series {number}"))
    with past(context) as known:
        assert held(check_instance(series(edit, "next")[4], known)) == {"preamble": Outcome.BLOCK}


def test_devices_of_two_protocols_do_not_answer_for_each_other(context: Context, series: Make) -> None:
    def edit(slices: list[FileDataset]) -> None:
        for one in slices:
            one.ProtocolName, one.RescaleIntercept = "t2", -3

    for number in range(6):
        learned(context, series(None, f"series {number}"))
    with past(context) as known:
        assert held(check_instance(series(edit, "other")[4], known)) == {}


def test_a_damaged_series_teaches_nothing(context: Context, series: Make) -> None:
    paths = series()
    paths[3].write_bytes(b"no DICOM")
    learned(context, paths)
    with past(context) as known:
        assert known.baseline(load(paths[4]).device(known), "Modality") == {}


@pytest.mark.parametrize("attribute", ["Modality", "PixelSpacing"])
def test_a_series_counts_once(attribute: str, context: Context, series: Make) -> None:
    paths = series()
    learned(context, paths)
    with past(context) as known:
        assert list(known.baseline(load(paths[4]).device(known), attribute).values()) == [1]


def test_evidence_in_quarantine_does_not_block_the_object_that_came_first(context: Context, series: Make) -> None:
    """Or whoever sends other content under a UID quickly enough could have the right object blocked."""
    path = series()[0]
    stored(context, [path])
    one = load(path)

    def evidence(connection: Connection) -> None:
        row = dict(connection.execute(select(objects)).mappings().one())
        connection.execute(insert(objects).values(**{**row, "id": None, "digest": "0" * 64, "state": "quarantined"}))

    context.journal.write(evidence)
    with past(context) as seen:
        assert [digest for digest, _ in seen.same_uid(one.text("SOPInstanceUID"))] == [one.digest]
