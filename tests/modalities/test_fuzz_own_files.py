"""Damaged files of a user's own arrays, loose images and notes: a thousand each, each read or refused in one line."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.modalities.mutations import survives

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.modalities._notes import read_csv


def test_an_npz_of_arrays_with_damage(tmp_path: Path) -> None:
    stream, path = io.BytesIO(), tmp_path / "a.npz"
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4)).astype(np.uint8)
    np.savez(stream, images=images, labels=np.arange(20) % 2)

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return make_modality({"name": "arrays", "file": str(path)})()

    read(stream.getvalue())
    assert survives(read, stream.getvalue(), SpecError) > 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_loose_image_with_damage(tmp_path: Path, kind: str) -> None:
    ending = kind.lower()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (8, 8)).astype(np.uint8)).save(tmp_path / f"{i}.{ending}", format=kind)
    rows = [f"{i}.{ending},{'ill' if i % 2 else 'well'},p{i}" for i in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,patient_id", *rows]))
    spec = {"name": "image-folder", "folder": str(tmp_path), "labels": str(tmp_path / "labels.csv")}
    path = tmp_path / f"0.{ending}"
    whole = path.read_bytes()

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return make_modality(spec)()

    read(whole)
    assert survives(read, whole, SpecError) > 200


def test_a_folder_of_notes_with_damage(titer_data: Path, tmp_path: Path) -> None:
    notes = read_csv(titer_data / "clinical_text" / "mtsamples.csv.gz", "file", "transcription", "medical_specialty")
    for i, note in enumerate(islice(notes, 24)):
        place = tmp_path / ("heart" if i % 2 else "bone") / f"{i}.txt"
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"{i} {note.text[:200]}")
    path, spec = tmp_path / "heart" / "1.txt", {"name": "clinical-notes", "folder": str(tmp_path)}
    # What a text may hold besides letters: another encoding, no character at all, line ends of their own.
    whole = path.read_bytes() + " naïve – Ménière\r\n".encode()

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return make_modality(spec)()

    read(whole)
    assert survives(read, whole, SpecError) > 200
