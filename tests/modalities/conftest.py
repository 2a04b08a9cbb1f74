from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

Study = Callable[..., tuple[Path, Path]]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Write 30 grey 12 x 10 images of 10 patients and their CSV; `changes` are columns, `None` drops one."""

    def write(count: int = 30, dtype: type = np.uint8, **changes: list[str] | None) -> tuple[Path, Path]:
        folder, rng = tmp_path / "images", np.random.default_rng(0)
        folder.mkdir(exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, np.iinfo(dtype).max, (12, 10), dtype=dtype)
            Image.fromarray(pixels).save(folder / f"img_{i:02d}.png")
        columns: dict[str, list[str] | None] = {
            "image": [f"img_{i:02d}.png" for i in range(count)],
            "label": [("healthy", "ill")[i // 3 % 2] for i in range(count)],
            "patient_id": [f"p{i // 3}" for i in range(count)],
            "sex": [("F", "M", "")[i % 3] for i in range(count)],
            "age": [str(10 + 3 * i) for i in range(count)],
            "site": ["north"] * count,
        }
        columns |= changes
        kept = {name: values for name, values in columns.items() if values is not None}
        path = tmp_path / "labels.csv"
        pd.DataFrame(kept).to_csv(path, index=False)
        return folder, path

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    """Write an .npz file."""

    def write(**content: np.ndarray) -> str:
        path = tmp_path / "data.npz"
        np.savez(path, **content)
        return str(path)

    return write
