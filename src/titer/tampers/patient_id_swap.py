"""Patient swap: images of one patient are filed under another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import Datasets, by, edited

_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")


@tamper(
    "patient-id-swap",
    files="dicom",
    misses="reading with strict values, and unique UIDs: each file agrees with itself, and the two patients both exist",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def patient_id_swap(*, patient_id: str | None = None) -> Tamper:
    """Exchange the identity of two patients: id, name, date of birth, sex.

    Args:
        patient_id: without a second patient, or instead of it: the id that every file gets, and nothing else.
    """

    def change(datasets: Datasets) -> Mapping[str, str]:
        patients = by(datasets, "PatientID")
        if patient_id is not None:
            return _renamed(datasets, patients, patient_id)
        if len(patients) < 2:
            raise Incompatible("patient-id-swap needs files of two patients, or the setting patient_id")
        first, second = list(patients)[:2]
        new = {one: {key: datasets[patients[one][0]].get(key) for key in _IDENTITY} for one in (first, second)}
        changes = {}
        for old, other in ((first, second), (second, first)):
            for name in patients[old]:
                _put(datasets, name, new[other])
                changes[name] = f"patient {old!r} became {other!r}: {', '.join(_IDENTITY)}"
        return changes

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, change)

    return run


def _renamed(datasets: Datasets, patients: Mapping[str, list[str]], patient_id: str) -> dict[str, str]:
    changes = {}
    for old, names in patients.items():
        for name in names if old != patient_id else ():
            datasets[name].PatientID = patient_id
            changes[name] = f"PatientID {old!r} became {patient_id!r}"
    if not changes:
        raise Incompatible(f"patient-id-swap: no file has a patient id other than {patient_id!r}")
    return changes


def _put(datasets: Datasets, name: str, identity: Mapping[str, object]) -> None:
    for key, value in identity.items():
        if value is not None:
            setattr(datasets[name], key, value)
        elif key in datasets[name]:
            delattr(datasets[name], key)
