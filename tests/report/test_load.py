"""What is wrong with a run folder is said in one line: the file, what was found, what is allowed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import change_json
from titer.core.errors import SpecError
from titer.report.build import build

JSON = ["manifest.json", "statistics.json", "sanity.json", "costs.json", "skipped.json"]
FILES = [*JSON, "plan.toml", "outcomes.parquet", "metrics.parquet"]


def refusal(folder: Any) -> str:
    before = (folder / "report.html").read_bytes()
    with pytest.raises(SpecError) as caught:
        build(folder)
    assert (folder / "report.html").read_bytes() == before
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Any, name: str) -> None:
    folder = copy("single")
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(folder)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("toml")])
def test_a_damaged_file_is_named(copy: Any, name: str) -> None:
    folder = copy("single")
    (folder / name).write_bytes(b"\x00\xffnot this")
    message = refusal(folder)
    assert name in message


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("version", [2, None, "1"])
def test_another_format_version_is_refused(copy: Any, name: str, version: Any) -> None:
    folder = copy("single")
    change_json(folder / name, lambda content: content | {"format_version": version})
    assert refusal(folder).endswith(f"{name} has format_version {version!r}: this version of Titer reads 1 only")


def test_a_missing_column_is_named(copy: Any) -> None:
    folder = copy("single")
    pd.read_parquet(folder / "outcomes.parquet").drop(columns=["won"]).to_parquet(folder / "outcomes.parquet")
    assert "lacks the column(s) won" in refusal(folder)


def test_a_missing_key_is_named(copy: Any) -> None:
    folder = copy("single")
    change_json(folder / "manifest.json", lambda content: {k: v for k, v in content.items() if k != "attacks"})
    assert "manifest.json: attacks is nothing: expected a list" in refusal(folder)


def test_a_list_instead_of_an_object_is_refused(copy: Any) -> None:
    folder = copy("single")
    (folder / "sanity.json").write_text(json.dumps([1]))
    assert "sanity.json holds a JSON list" in refusal(folder)


def test_a_damaged_example_is_named(copy: Any) -> None:
    folder = copy("single")
    path = next((folder / "examples").glob("*.npz"))
    path.write_bytes(b"PK\x03\x04 broken")
    assert path.name in refusal(folder)


def test_a_pickled_example_is_not_run(copy: Any) -> None:
    folder = copy("single")
    path = next((folder / "examples").glob("*.npz"))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | {"sample_id": np.array([{"a": 1}], dtype=object)}))
    assert path.name in refusal(folder)


def test_a_folder_that_is_not_one_is_refused(tmp_path: Any) -> None:
    with pytest.raises(SpecError, match="is not a folder"):
        build(tmp_path / "nowhere")
