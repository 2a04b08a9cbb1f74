from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.modalities import _files, _pneumonia, chest_xray
from titer.modalities._checks import age_band, checked, listed
from titer.modalities._files import DataFile, fetch, sha256


def test_chest_xray(titer_data: Path) -> None:
    data = make_modality("chest-xray")()
    assert {name: tuple(part.x.shape) for name, part in data.fixed.items()} == {
        "train": (4682, 1, 28, 28), "validation": (524, 1, 28, 28), "test": (624, 1, 28, 28),
    }  # fmt: skip
    assert data.units == {"grey level": 1.0, "/255": 1.0, "range": 255.0}
    assert (titer_data / chest_xray.FILES[0].place).is_file()


def test_cytology_is_always_there() -> None:
    data = make_modality("cytology")()
    assert data.pool is not None
    assert data.pool.x.shape == (569, 30)
    assert int((data.pool.y == 1).sum()) == 212
    assert all(bool(rule.contains(data.pool.x, data.pool.x).all()) for rule in data.domain)


def test_absent_and_offline_says_what_to_download_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TITER_DATA", raising=False)
    monkeypatch.setenv("TITER_CACHE", str(tmp_path))
    file = DataFile(place="chest_xray/x.npz", address="http://127.0.0.1:9/x.npz", digest="md5:0", licence="CC0")
    monkeypatch.setattr(_pneumonia, "FILE", file)
    with pytest.raises(SpecError) as caught:
        make_modality("chest-xray")()
    message = str(caught.value)
    assert "\n" not in message
    assert "download http://127.0.0.1:9/x.npz (md5:0)" in message
    assert str(tmp_path / "data" / "chest_xray" / "x.npz") in message
    assert "set TITER_DATA to a directory that holds chest_xray/x.npz" in message
    assert not (tmp_path / "data" / "chest_xray" / "x.npz").exists()


def test_the_cache_is_found_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TITER_DATA", raising=False)
    monkeypatch.setenv("TITER_CACHE", str(tmp_path))
    place = tmp_path / "data" / "a" / "b.txt"
    place.parent.mkdir(parents=True)
    place.write_text("kept")
    file = DataFile(place="a/b.txt", address="http://127.0.0.1:9/b.txt", digest="md5:0", licence="CC0")
    assert fetch(file) == place
    assert len(sha256(place)) == 64


def test_a_data_directory_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TITER_DATA", str(tmp_path / "absent"))
    with pytest.raises(SpecError, match=r"TITER_DATA = .* is not a directory"):
        _files.data_directory()


def test_a_damaged_chest_xray_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / chest_xray.FILES[0].place
    place.parent.mkdir()
    for content in (b"", b"PK\x03\x04 broken", b"text"):
        place.write_bytes(content)
        monkeypatch.setenv("TITER_DATA", str(tmp_path))
        with pytest.raises(SpecError, match="cannot be read"):
            make_modality("chest-xray")()
    np.savez(place, train_images=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(SpecError, match="is not PneumoniaMNIST: train_images"):
        make_modality("chest-xray")()


def test_every_problem_is_listed_at_once() -> None:
    from dataclasses import replace

    data = make_modality("cytology")()
    assert data.pool is not None
    x, y = data.pool.x.clone(), data.pool.y.clone()
    x[3, 0], y[5] = float("nan"), 7
    ids = ("twin", "twin", *data.pool.ids[2:])
    with pytest.raises(SpecError) as caught:
        checked(replace(data, pool=replace(data.pool, x=x, y=y, ids=ids)))
    message = str(caught.value)
    assert "wdbc-005 has 7" in message
    assert "NaN or infinite in wdbc-003" in message
    assert "sample ids twice: twin" in message
    negative = torch.where(torch.arange(30) == 0, -1.0, data.pool.x)
    with pytest.raises(SpecError, match="breaks its own domain rule 'each measure is non-negative'"):
        checked(replace(data, pool=replace(data.pool, x=negative)))


def test_words() -> None:
    assert listed([*range(12)]).endswith("9 and 2 more")
    assert [age_band(a) for a in ("17", 18, "64.5", "90", "", "x", "nan", "-1")] == [
        "0-17", "18-39", "40-64", "65+", "unknown", "unknown", "unknown", "unknown",
    ]  # fmt: skip
