"""ECG beats: the MIT-BIH Arrhythmia Database, and your own WFDB records, .npz or CSV files; values in mV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from titer.core.errors import SpecError
from titer.core.plugins import Count, Positive, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._beat_files import read_beats
from titer.modalities._checks import check_classes, positive_class, samples
from titer.modalities._files import DataFile, locate, read_npz
from titer.modalities._signals import About, Beats, Recorder, as_data, thinned
from titer.modalities._wfdb import Cut, check_symbols, read_folder

FILES = (
    DataFile(
        place="ecg/mitbih12_beats_360hz.npz",
        address="https://physionet.org/content/mitdb/1.0.0/",
        digest="sha256:e04d1c7978c80e3304ec864bc22e04a15db12f24bcdc782d3ac88b0bae90a352",
        licence="ODC-By 1.0",
    ),
)
_CLASSES = ("other beat", "premature ventricular beat")
_RATE, _GAIN, _LEVELS = 360.0, 200, 1024
"""Samples a second, steps of the converter a mV, and half of the steps of its 11 bits."""

_BEFORE, _SAMPLES = 100, 250
_SOURCE = "Moody, Mark 2001, 10.1109/51.932724; Goldberger et al. 2000 (PhysioNet), 10.1161/01.CIR.101.23.e215"
_KEYS = ("beats_adu200", "is_pvc", "record", "rpeak")


@modality("ecg")
def ecg(
    *,
    file: str | None = None,
    folder: str | None = None,
    patients: str | None = None,
    annotations: str = "atr",
    symbols: dict[str, tuple[str, ...]] | None = None,
    before: Positive = 0.28,
    after: Positive = 0.42,
    rate: Positive | None = None,
    leads: tuple[str, ...] | None = None,
    value_range: tuple[float, float] | None = None,
    resolution: Positive | None = None,
    beats: Count | None = None,
    positive: str | None = None,
    test_share: Share = 0.3,
    validation_share: Share = 0.25,
    title: str = "",
    licence: str = "",
) -> Modality:
    """ECG beats in mV: 12 records of the MIT-BIH Arrhythmia Database, or your own WFDB records, .npz or CSV file.

    A record is a patient, unless your files say more. Without `file` and `folder` it is the MIT-BIH beats: premature
    ventricular beats against all others.

    Args:
        file: an .npz or CSV file of beats; a plan takes it from its own folder.
        folder: where WFDB records lie: a header, its signals and its annotations each.
        patients: a CSV file, one line a WFDB record: `record` and any of `patient_id`, `sex`, `age`, `site`, `split`.
        annotations: ending of the WFDB annotation files.
        symbols: names of the classes in order, each with its WFDB annotation symbols; by default `V` against all
            other beats. Beats of other symbols are left out.
        before: seconds of a WFDB beat before its annotation.
        after: seconds from there on.
        rate: samples a second; needed for CSV files, and where an .npz file does not state it.
        leads: names of the WFDB leads that are read, or of an .npz file's; by default all of the first record.
        value_range: lowest and highest value of the recorder in mV, for .npz and CSV files.
        resolution: its step in mV, for .npz and CSV files.
        beats: at most so many beats of each class of each record, evenly spaced; by default all.
        positive: the class that is the finding; by default the last of two.
        test_share: share of the patients' beats tested in each trial, where nothing fixes the parts.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    _check(file, folder, patients, value_range)
    classes = check_symbols(symbols)
    if positive is not None and folder is not None:
        check_classes(tuple(classes), positive)

    def load() -> ClinicalData:
        if folder is not None:
            cut = Cut(before=before, after=after, classes=classes, leads=leads, rate=rate, most=beats)
            found = read_folder(Path(folder), annotations, None if patients is None else Path(patients), cut)
        elif file is not None:
            given = Recorder(
                rate=rate or 0.0,
                leads=leads or (),
                low=-np.inf if value_range is None else value_range[0],
                high=np.inf if value_range is None else value_range[1],
                resolution=resolution or 0.0,
            )
            found = read_beats(Path(file), given, beats)
        else:
            found = _mit_bih(beats)
        own = file or folder
        about = About(
            title=title or ("MIT-BIH Arrhythmia Database, 12 records" if own is None else Path(own).stem),
            source=_SOURCE if own is None else f"the user's own signals: {Path(own).name}",
            licence=licence or ("ODC-By 1.0" if own is None else "not stated"),
            test_share=test_share,
            validation_share=validation_share,
        )
        return as_data(found, positive_class(positive, found.classes), about)

    return load


def _check(file: str | None, folder: str | None, patients: str | None, value_range: tuple[float, float] | None) -> None:
    if file is not None and folder is not None:
        raise SpecError(f"data.file = {file!r} is not allowed with folder = {folder!r}: give one of them")
    if patients is not None and folder is None:
        raise SpecError(f"data.patients = {patients!r} is not allowed without folder: the file names its own patients")
    if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise SpecError(f"data.value_range = {list(value_range)!r} is not allowed: a lower and a higher finite number")


def _mit_bih(most: int | None) -> Beats:
    """Return the beats of the data file, in mV: its values are steps of the recorder's converter."""
    path = locate(FILES[0])
    if path is None:
        raise SpecError(
            f"data file {FILES[0].place!r} is not on this machine: set TITER_DATA to a directory that holds it, or "
            f"download the records of {FILES[0].address} and give their folder as data.folder"
        )
    content = read_npz(path, "data file")
    steps, labels, records, peaks = (content.get(key) for key in _KEYS)
    if steps is None or labels is None or records is None or peaks is None or steps.shape[1:] != (_SAMPLES,):
        raise SpecError(f"data file {str(path)!r} is not Titer's MIT-BIH beats: {', '.join(_KEYS)} are needed")
    if not len(steps) == len(labels) == len(records) == len(peaks):
        raise SpecError(f"data file {str(path)!r} is damaged: {', '.join(_KEYS)} differ in length")
    rows = thinned(labels, records, most)
    names = [str(record) for record in records[rows].tolist()]
    ids = [f"{name}-{peak}" for name, peak in zip(names, peaks[rows].tolist(), strict=True)]
    return Beats(
        rows=samples(steps[rows, None].astype(np.float32) / _GAIN, labels[rows], ids=ids, patients=names),
        classes=_CLASSES,
        recorder=Recorder(
            rate=_RATE,
            leads=("first lead",),
            low=-_LEVELS / _GAIN,
            high=(_LEVELS - 1) / _GAIN,
            resolution=1 / _GAIN,
        ),
        before=_BEFORE,
    )
