"""Damaged files: whatever is in them, a reader returns beats or one line that says what is wrong."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.modalities.ecg_files import write_record

from titer.core.errors import SpecError
from titer.core.plugins import make_modality

TIMES = 1000
_BEATS = np.random.default_rng(0).normal(0, 0.3, (8, 12)).astype(np.float32)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip, drop, insert or repeat a few bytes, or cut the file short."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            found = found[:at]
        elif kind == 1:
            found[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 2:
            del found[at : at + rng.randint(1, 8)]
        elif kind == 3:
            found[at:at] = found[at : at + rng.randint(1, 40)]
        elif at < len(found):
            found[at] = rng.randrange(256) if kind == 4 else rng.choice(b"0123456789 -./\n,")
    return bytes(found)


def survives(load: Callable[[], object]) -> bool:
    """Return whether it loads; SpecError of one line is the only other end."""
    try:
        load()
    except SpecError as error:
        said = str(error)
    else:
        return True
    assert "\n" not in said, said
    return False


def test_a_thousand_damaged_wfdb_records(tmp_path: Path) -> None:
    folder, rng = tmp_path / "whole", random.Random(0)
    write_record(folder, "p0", beats=4)
    load = make_modality({"name": "ecg", "folder": str(tmp_path / "broken"), "beats": 2})
    shutil.copytree(folder, tmp_path / "broken")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = 0
    for _ in range(TIMES):
        name = rng.choice(sorted(whole))
        (tmp_path / "broken" / name).write_bytes(damaged(whole[name], rng))
        loaded += survives(load)
        (tmp_path / "broken" / name).write_bytes(whole[name])
    assert survives(load)
    assert 0 < loaded < TIMES


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, beats=_BEATS, labels=np.arange(8) % 2, record=np.arange(8) // 2, rate=np.array(100.0))
    return buffer.getvalue()


def _csv() -> bytes:
    head = ",".join(["record", "label", *(str(i) for i in range(12))])
    lines = [",".join([f"r{i // 2}", "NV"[i % 2], *(f"{v:.4f}" for v in row)]) for i, row in enumerate(_BEATS)]
    return "\n".join([head, *lines, ""]).encode()


@pytest.mark.parametrize(("name", "content"), [("beats.npz", _npz()), ("beats.csv", _csv())])
def test_a_thousand_damaged_files_of_beats(tmp_path: Path, name: str, content: bytes) -> None:
    path, rng, loaded = tmp_path / name, random.Random(0), 0
    load = make_modality({"name": "ecg", "file": str(path), "rate": 100.0})
    path.write_bytes(content)
    assert survives(load)
    for _ in range(TIMES):
        path.write_bytes(damaged(content, rng))
        loaded += survives(load)
    assert 0 < loaded < TIMES
