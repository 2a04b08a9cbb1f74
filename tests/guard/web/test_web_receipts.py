"""A study's signed receipt: downloaded, verified offline, audited as a read, and of files that stay as they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from tests.guard.web import seed

from titer.guard.checks.receipts import problems
from titer.guard.keys import VERIFYING
from titer.guard.operate import receipts
from titer.guard.store.tables import objects

STUDY = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
def files(context) -> list[Path]:
    """Two series of one study, and one of another, as received."""
    pictures = [np.full((8, 8), grey, dtype=np.uint8) for grey in (10, 20, 30)]
    for picture, study in zip(pictures, (STUDY, STUDY, f"{STUDY}.2"), strict=True):
        seed.put(context, [seed.image_file(picture, StudyInstanceUID=study)])
    with context.engine.connect() as connection:
        return [Path(one) for one in connection.execute(select(objects.c.path).order_by(objects.c.id)).scalars()]


def public(context) -> bytes:
    return (context.home.keys / VERIFYING).read_bytes()


def test_a_receipt_names_each_object_of_the_study_and_is_verified_without_the_guard(context, client, files) -> None:
    before = [path.read_bytes() for path in files]
    answer = client("auditor").get("/receipts", params={"study": STUDY})
    assert answer.headers["content-disposition"] == f'attachment; filename="receipt-{STUDY}.json"'
    manifest = answer.json()
    assert manifest["study_instance_uid"] == STUDY
    found = {one["sha256"] for part in manifest["series"] for one in part["objects"]}
    assert found == {hashlib.sha256(content).hexdigest() for content in before[:2]}
    assert [one["outcome"] for part in manifest["series"] for one in part["verdicts"]] == ["FLAG", "FLAG"]
    assert problems(manifest, public(context), files[:2]) == []
    assert problems(manifest, public(context), files[2:]) == [f"{files[2].name} is not what was received"]
    assert [path.read_bytes() for path in files] == before, "a receipt changes no stored object"
    assert "MEIER" not in answer.text
    assert "4711998" not in answer.text


def test_a_receipt_that_is_read_is_an_audit_row(client, files, events) -> None:
    assert files
    client("service").get("/receipts", params={"study": STUDY})
    last = events()[-1]
    assert (last["type"]["code"], last["action"]) == ("110103", "R")
    assert last["entity"][0]["what"]["identifier"]["value"] == f"study={STUDY}"


@pytest.mark.parametrize(("study", "status"), [("1.2.3", 404), ("", 422), ("1' OR '1'='1", 422), ("1" * 65, 422)])
def test_what_is_no_known_study_has_no_receipt(client, files, study, status) -> None:
    assert files
    assert client("auditor").get("/receipts", params={"study": study}).status_code == status


def test_the_case_and_the_audit_page_lead_to_it(client, files) -> None:
    assert files
    assert f'href="/receipts?study={STUDY}"' in client("radiologist").get("/cases/1").text
    assert 'action="/receipts"' in client("auditor").get("/audit").text


@pytest.mark.parametrize("where", ["issued", "study_instance_uid", "series", "signature"])
def test_a_changed_receipt_of_a_study_is_none(context, files, tmp_path, where) -> None:
    manifest = receipts.made(context, STUDY)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(manifest, indent=2))
    assert receipts.wrong(context.home, STUDY, file, files[:2]) == []
    assert receipts.wrong(context.home, "1.2.3", file) == ["the receipt is not of study 1.2.3"]
    changed = {"series": manifest["series"][1:], "signature": manifest["signature"][::-1]}
    wrong = "the receipt is not signed by this guard's key, or was changed"
    file.write_text(json.dumps({**manifest, where: changed.get(where, "1.2")}))
    assert receipts.wrong(context.home, STUDY, file) == [wrong]
