from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.modalities.ecg_files import write_record, write_study

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.core.record import ClinicalData

Write = Callable[..., str]
RNG = np.random.default_rng(0)
BEATS = RNG.normal(0, 0.3, (40, 60)).astype(np.float32)
LABELS = np.array(["N", "V"] * 20)
RECORDS = np.repeat([f"r{i}" for i in range(8)], 5)


def load(**settings: Any) -> ClinicalData:
    return make_modality({"name": "ecg", **settings})()


def refusal(**settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(**settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mit_bih(titer_data: Path) -> None:
    data = load()
    assert data.pool is not None
    assert data.pool.x.shape == (25301, 1, 250)
    assert int(data.pool.y.sum()) == 2011
    assert len(set(data.pool.patients)) == 12
    assert (data.kind, data.value_range) == ("signal", (-5.12, 5.115))
    assert data.units == {"mV": 1.0, "uV": 1e-3}
    assert data.drawing["rate"] == 360.0
    assert all(bool(rule.contains(data.pool.x, data.pool.x).all()) for rule in data.rules.values())
    assert (titer_data / "ecg").is_dir()


def test_at_most_so_many_beats_of_each_class_and_record(titer_data: Path) -> None:
    assert titer_data.is_dir()
    data = load(beats=100)
    assert data.pool is not None
    counts = pd.DataFrame({"record": data.pool.patients, "y": data.pool.y.numpy()}).value_counts()
    assert counts.max() == 100
    assert counts[("106", 1)] == 100
    assert counts[("100", 1)] == 1


def test_absent_data_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TITER_DATA", str(tmp_path))
    monkeypatch.setenv("TITER_CACHE", str(tmp_path))
    assert "give their folder as data.folder" in refusal()


def test_wfdb_records_are_cut_at_their_annotations(tmp_path: Path) -> None:
    data = load(folder=str(write_study(tmp_path / "wfdb")), before=0.25, after=0.25)
    assert data.pool is not None
    assert data.pool.x.shape == (48, 2, 180)
    assert data.classes == ("other beat", "premature ventricular beat")
    assert int(data.pool.y.sum()) == 12
    assert sorted(set(data.pool.patients)) == ["p0", "p1", "p2", "p3"]
    assert data.drawing["leads"] == ["MLII", "V1"]
    assert int(data.pool.x[0, 0].argmax()) in range(84, 97)
    assert 1.1 < float(data.pool.x[0, 0].max()) < 1.6
    assert all(bool(rule.contains(data.pool.x, data.pool.x).all()) for rule in data.rules.values())


def test_a_lead_and_own_classes(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "wfdb")
    data = load(
        folder=str(folder), leads=["V1"], symbols={"ventricular": ["V"], "normal": ["N"]}, positive="ventricular"
    )
    assert data.pool is not None
    assert data.pool.x.shape[1] == 1
    assert (data.classes, data.positive) == (("ventricular", "normal"), 0)


def test_patients_and_parts_of_records(tmp_path: Path) -> None:
    folder, table = write_study(tmp_path / "wfdb"), tmp_path / "patients.csv"
    rows = {"record": ["p0", "p1", "p2", "p3"], "patient_id": ["a", "b", "c", "d"], "sex": ["F", "M", "F", "M"]}
    pd.DataFrame(rows | {"split": ["train", "train", "val", "test"]}).to_csv(table, index=False)
    data = load(folder=str(folder), patients=str(table))
    assert {name: sorted(set(part.patients)) for name, part in data.fixed.items()} == {
        "train": ["a", "b"], "validation": ["c"], "test": ["d"],
    }  # fmt: skip
    assert data.fixed["test"].groups["sex"][0] == "M"


def test_the_same_patient_in_two_parts_is_refused(tmp_path: Path) -> None:
    folder, table = write_study(tmp_path / "wfdb"), tmp_path / "patients.csv"
    rows = {"record": ["p0", "p1", "p2", "p3"], "patient_id": ["a", "b", "c", "a"]}
    pd.DataFrame(rows | {"split": ["train", "train", "val", "test"]}).to_csv(table, index=False)
    assert "patient_id: a stand in both train and test" in refusal(folder=str(folder), patients=str(table))


def test_the_same_beats_under_two_patients_are_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "wfdb", 2)
    for ending in ("hea", "dat", "atr"):
        content = (folder / f"p0.{ending}").read_bytes()
        (folder / f"copy.{ending}").write_bytes(content.replace(b"p0", b"copy") if ending == "hea" else content)
    assert "the same beat under two patients: copy-" in refusal(folder=str(folder))


def test_what_is_wrong_with_a_record_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "wfdb", 2)
    write_record(folder, "slow", rate=250)
    assert refusal(folder=str(folder)) == "record 'slow' is sampled at 250 Hz, others at 360 Hz: allowed is one"
    (folder / "slow.hea").unlink()
    (folder / "p1.atr").rename(folder / "p1.qrs")
    assert "record 'p1' has no annotations: p1.atr is missing" in refusal(folder=str(folder))
    (folder / "p1.qrs").rename(folder / "p1.atr")
    whole = (folder / "p1.dat").read_bytes()
    (folder / "p1.dat").write_bytes(whole[:-500])
    assert "record 'p1' is truncated: p1.dat has" in refusal(folder=str(folder))
    (folder / "p1.dat").unlink()
    assert "record 'p1' has no signals: p1.dat is missing" in refusal(folder=str(folder))


def test_forms_that_are_not_read(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "wfdb", 1)
    header = (folder / "p0.hea").read_text()
    for before, after, said in (
        ("p0.dat 212", "p0.dat 516", "stored in format 516"),
        ("p0.dat 212", "../p0.dat 212", "invalid syntax in signal line"),
        ("/mV", "/mmHg", "in mmHg, allowed are mV, uV and V"),
        ("p0 2 360", "p0/3 2 360", "invalid syntax in segment line"),
        ("V1", "MLII", "share a name"),
    ):
        (folder / "p0.hea").write_text(header.replace(before, after))
        assert said in refusal(folder=str(folder)), (before, after)


def test_invalid_samples_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "wfdb"
    write_record(folder, "p0", fmt=["16", "16"])
    values = np.fromfile(folder / "p0.dat", dtype="<i2").reshape(-1, 2)
    values[1000, 0] = -(2**15)
    values.tofile(folder / "p0.dat")
    assert "record 'p0' has invalid samples (NaN) near sample 1050" in refusal(folder=str(folder))


def test_settings_that_contradict_each_other() -> None:
    assert "give one of them" in refusal(folder="a", file="b.npz")
    assert "not allowed without folder" in refusal(patients="a.csv")
    assert "data.value_range = [1.0, 1.0]" in refusal(file="a.npz", value_range=[1, 1])
    assert "allowed are WFDB's symbols" in refusal(folder="a", symbols={"a": ["N"], "b": ["?!"]})
    assert "N in two classes" in refusal(folder="a", symbols={"a": ["N"], "b": ["N"]})
    assert "no such directory" in refusal(folder="absent")
    assert "its name ends in .npz or .csv" in refusal(file="beats.txt", rate=360)


def test_own_npz(npz: Write) -> None:
    file = npz(beats=BEATS, labels=LABELS, record=RECORDS, rate=np.array(250.0))
    data = load(file=file, value_range=[-5, 5], resolution=0.005)
    assert data.pool is not None
    assert data.pool.x.shape == (40, 1, 60)
    assert data.classes == ("N", "V")
    assert data.domain[0].describe() == "each value in [-5, 5] mV"
    assert sorted(data.rules) == ["below-40-hz", "stored-values"]
    assert data.pool.patients == tuple(RECORDS)


def test_what_is_wrong_with_an_npz_is_told(npz: Write) -> None:
    assert "data.rate is missing" in refusal(file=npz(beats=BEATS, labels=LABELS))
    assert "another rate" in refusal(file=npz(beats=BEATS, labels=LABELS, rate=np.array(250.0)), rate=360)
    broken = BEATS.copy()
    broken[3, 4] = np.nan
    assert "NaN or infinite in beat_000003" in refusal(file=npz(beats=broken, labels=LABELS), rate=250)
    assert "holds neither beats and x" in refusal(file=npz(labels=LABELS), rate=250)
    assert "one value a beat (40)" in refusal(file=npz(beats=BEATS, labels=LABELS[:5]), rate=250)
    parts = np.array(["train", "test", "val", "train"] * 10)
    assert "stand in both" in refusal(file=npz(beats=BEATS, labels=LABELS, record=RECORDS, split=parts), rate=250)


def csv(path: Path, **changes: Any) -> str:
    frame = pd.DataFrame(BEATS.astype(str), columns=[f"s{i}" for i in range(60)])
    frame.insert(0, "label", LABELS)
    frame.insert(0, "record", RECORDS)
    for place, value in changes.items():
        frame.loc[5, place] = value
    frame.to_csv(path, index=False)
    return str(path)


def test_own_csv(tmp_path: Path) -> None:
    data = load(file=csv(tmp_path / "beats.csv"), rate=250)
    assert data.pool is not None
    assert np.allclose(data.pool.x[:, 0].numpy(), BEATS)
    assert data.pool.ids[0] == "line 2"
    assert data.domain == ()


def test_what_is_wrong_with_a_csv_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "beats.csv"
    assert "data.rate is missing" in refusal(file=csv(path))
    assert "line 7, column s3 ('nan')" in refusal(file=csv(path, s3="nan"), rate=250)
    assert "line 7, column s3 ('high')" in refusal(file=csv(path, s3="high"), rate=250)
    csv(path)
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))
    assert "not a CSV file in UTF-8" in refusal(file=str(path), rate=250)
    path.write_text("record,s1\nr0,1\n")
    assert "no column 'label'" in refusal(file=str(path), rate=250)


def test_memory_is_flat_where_ten_times_as_long_a_record_is_read(tmp_path: Path) -> None:
    peaks = []
    for beats in (400, 4000):
        folder = tmp_path / str(beats)
        write_record(folder, "long", beats=beats)
        load(folder=str(folder), beats=20)
        tracemalloc.start()
        load(folder=str(folder), beats=20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks
