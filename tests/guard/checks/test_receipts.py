"""Receipts: made by a guard, verified without it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert

from titer.guard.checks.loaded import load
from titer.guard.checks.receipts import problems, read_receipt, receipt
from titer.guard.context import Context
from titer.guard.keys import VERIFYING, Signer, make
from titer.guard.store.tables import objects, verdicts

Make = Callable[..., list[Path]]


@pytest.fixture
def issued(context: Context, series: Make) -> tuple[dict, list[Path]]:
    paths = series()
    uid = load(paths[0]).text("SeriesInstanceUID")
    rows = []
    for number, path in enumerate(paths):
        one = load(path)
        rows.append(
            {
                "sop_instance_uid": one.text("SOPInstanceUID"), "sop_class_uid": one.text("SOPClassUID"),
                "study_instance_uid": one.text("StudyInstanceUID"), "series_instance_uid": uid,
                "transfer_syntax_uid": one.syntax, "digest": one.digest, "pixel_digest": one.pixel_digest,
                "modality": "MR", "size": one.size, "path": str(path), "route": "all", "calling_ae": "TEST",
                "peer": "127.0.0.1", "received_at": 1000.0 + number, "state": "judged",
            }
        )  # fmt: skip
    verdict = {"subject_kind": "series", "subject": uid, "route": "all", "input_digest": "0" * 64, "outcome": "PASS",
               "scores": {}, "state": "released", "created_at": 2000.0}  # fmt: skip
    context.journal.write(lambda connection: connection.execute(insert(objects), rows))
    context.journal.write(lambda connection: connection.execute(insert(verdicts).values(**verdict)))
    with context.engine.connect() as connection:
        return receipt(connection, context.signer, uid, 3000.0), paths


def public(context: Context) -> bytes:
    return (context.home.keys / VERIFYING).read_bytes()


def test_a_receipt_is_verified_offline_after_a_way_through_a_file(context: Context, issued, tmp_path: Path) -> None:
    manifest, paths = issued
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(manifest, indent=2))
    assert problems(read_receipt(file), public(context), paths) == []
    assert len(manifest["objects"]) == len(paths)
    assert min(one["received"] for one in manifest["objects"]) == "1970-01-01T00:16:40.000+00:00"
    assert [one["outcome"] for one in manifest["verdicts"]] == ["PASS"]


def test_a_file_that_was_changed_is_named(context: Context, issued) -> None:
    manifest, paths = issued
    content = paths[5].read_bytes()
    paths[5].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert problems(manifest, public(context), paths) == ["005.dcm is not what was received"]


@pytest.mark.parametrize("where", ["issued", "series_instance_uid", "objects", "verdicts", "signature", "version"])
def test_a_changed_receipt_is_none(where: str, context: Context, issued) -> None:
    manifest, paths = issued
    changed = {**manifest, where: {"objects": manifest["objects"][1:], "verdicts": []}.get(where, "00")}
    assert len(problems(changed, public(context), paths)) == 1


def test_another_guards_key_signs_nothing(issued, tmp_path: Path) -> None:
    make(tmp_path / "other")
    assert Signer(tmp_path / "other")
    assert len(problems(issued[0], (tmp_path / "other" / VERIFYING).read_bytes())) == 1


def test_a_file_that_is_no_receipt_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no receipt"):
        read_receipt(path)
