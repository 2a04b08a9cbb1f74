"""Review: what the queue and a case show, the pixels that the viewer gets, and what reaches the judge."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from sqlalchemy import insert
from tests.guard.web import seed

from titer.guard.store.tables import objects, reviews
from titer.guard.web import slices


@pytest.fixture
def grey() -> np.ndarray:
    rng = np.random.default_rng(3)
    ramp = np.linspace(-900, 2800, 64)[None, :] + np.linspace(0, 300, 48)[:, None]
    return (ramp + rng.normal(0, 20, (48, 64))).astype(np.int16)


def test_the_queue_shows_the_most_urgent_first_and_filters(context, client, grey) -> None:
    low = seed.put(context, [seed.image_file(grey)], urgency=1, at=1000.0)
    high = seed.put(context, [seed.image_file(grey, "MR")], urgency=9, at=2000.0, outcome="BLOCK")
    done = seed.put(context, [seed.image_file(grey)], state="released", outcome="PASS")
    page = client("radiologist").get("/queue").text
    assert page.index(f"/cases/{high}") < page.index(f"/cases/{low}")
    assert f"/cases/{done}" not in page
    only = client("radiologist").get("/queue", params={"modality": "MR"}).text
    assert f"/cases/{high}" in only
    assert f"/cases/{low}" not in only
    assert f"/cases/{done}" in client("radiologist").get("/queue", params={"state": "released"}).text


def test_a_case_shows_findings_scores_and_the_patient_and_reading_it_is_audited(context, client, grey, events) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    page = client("radiologist").get(f"/cases/{number}").text
    for words in (
        "The model looks elsewhere",
        "saliency-drift",
        "0.61 / 0.55",
        "MEIER, ANNA",
        "AML.T0043",
        "no tumour",
    ):
        assert words in page
    last = events()[-1]
    assert (last["type"]["code"], last["action"]) == ("110103", "R")
    assert "MEIER" not in str(events())


def test_pixels_come_raw_with_what_a_real_window_needs(context, client, grey) -> None:
    fields = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 80], "WindowWidth": [400, 200],
              "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.7, 0.5]}  # fmt: skip
    number = seed.put(context, [seed.image_file(grey, "CT", **fields)])
    answer = client("reviewer").get(f"/api/cases/{number}/slices/0")
    assert answer.status_code == 200
    said = {name: answer.headers[f"titer-{name}"] for name in ("rows", "columns", "type", "slope", "intercept")}
    assert said == {"rows": "48", "columns": "64", "type": "int16", "slope": "2.0", "intercept": "-1024.0"}
    assert answer.headers["titer-window"] == "40.0,400.0"
    assert answer.headers["titer-sides"] == "R,L,A,P"
    assert answer.headers["titer-spacing"] == "0.7,0.5"
    assert np.array_equal(np.frombuffer(answer.content, "<i2").reshape(48, 64), grey)


def test_the_sanitized_copy_is_close_in_the_same_values_and_not_the_same(context, client, grey) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    answer = client("radiologist").get(f"/api/cases/{number}/slices/0", params={"copy": "sanitized"})
    copy = np.frombuffer(answer.content, "<i2").reshape(48, 64).astype(float)
    gap = np.abs(copy - grey)
    assert 0 < gap.max() < 0.2 * np.ptp(grey)


def test_the_images_of_a_case_are_one_audit_row_a_session(context, client, grey, events) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    for _ in range(5):
        client("radiologist").get(f"/api/cases/{number}/slices/0")
    assert sum("images" in str(e) and e["type"]["code"] == "110103" for e in events()) == 1


def test_a_file_that_was_changed_after_its_verdict_is_not_shown_and_raises_an_alert(
    context, client, grey, events
) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    with context.engine.connect() as connection:
        path = Path(connection.execute(objects.select()).one().path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert client("radiologist").get(f"/api/cases/{number}/slices/0").status_code == 409
    assert events()[-1]["type"]["code"] == "110113"
    path.unlink()
    slices_of = client("radiologist").get(f"/api/cases/{number}/slices/0")
    assert slices_of.status_code == 409


def test_slices_stand_along_the_patients_axis_whatever_their_numbers_say(context, grey) -> None:
    files = [
        seed.image_file(grey + z, InstanceNumber=9 - z, ImagePositionPatient=[0, 0, 3 * z],
                        ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        for z in (2, 0, 1)
    ]  # fmt: skip
    paths = []
    for i, content in enumerate(files):
        paths.append(context.home.root / f"{i}.dcm")
        paths[-1].write_bytes(content)
    found = slices.ordered([{"path": str(path), "digest": "x"} for path in paths])
    assert [one.path for one in found] == [paths[1], paths[2], paths[0]]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEG2000.dcm", "examples_palette.dcm",
             "SC_rgb_rle_2frame.dcm", "MR_truncated.dcm", "rtdose.dcm", "rtplan.dcm", "liver_1frame.dcm"]
)  # fmt: skip
def test_other_peoples_files_are_shown_or_refused_with_a_reason(context, client, name) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None, "pydicom brings this file"
    number = seed.put(context, [Path(path).read_bytes()])
    answer = client("radiologist").get(f"/api/cases/{number}/slices/0")
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        size = {"int16": 2, "uint16": 2, "uint8": 1}[answer.headers["titer-type"]]
        shape = [int(answer.headers[f"titer-{one}"]) for one in ("rows", "columns", "samples")]
        assert len(answer.content) == size * int(np.prod(shape))


def test_a_header_that_claims_a_huge_image_is_refused_before_decoding(context, client, grey) -> None:
    data = pydicom.dcmread(io.BytesIO(seed.image_file(grey)))
    data.Rows, data.Columns = 65535, 65535
    stream = io.BytesIO()
    data.save_as(stream)
    number = seed.put(context, [stream.getvalue()])
    answer = client("radiologist").get(f"/api/cases/{number}/slices/0")
    assert answer.status_code == 422
    assert "64 MiB" in answer.json()["detail"]


def test_a_decision_reaches_the_judge_with_who_and_in_which_role(context, client, decisions, grey) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    one = client("radiologist")
    where = f"/cases/{number}/decision"
    assert one.post(where, data={"action": "accept"}).status_code == 303
    assert one.post(where, data={"action": "override", "comment": "artefact", "label": "glioma"}).status_code == 303
    assert decisions.asked == [
        (number, "one-radiologist", "radiologist", "accept", "", None),
        (number, "one-radiologist", "radiologist", "override", "artefact", "glioma"),
    ]


@pytest.mark.parametrize(
    "given", [{"action": "override", "label": "x"}, {"action": "override", "comment": "x"}, {"action": "reject"},
              {"action": "comment"}]
)  # fmt: skip
def test_a_decision_without_its_reason_or_label_is_not_sent(context, client, decisions, grey, given) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    assert client("radiologist").post(f"/cases/{number}/decision", data=given).status_code == 400
    assert decisions.asked == []


def test_what_the_judge_refuses_is_shown(context, client, decisions, grey) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    decisions.refusal = "a second person must agree"
    answer = client("radiologist").post(f"/cases/{number}/decision", data={"action": "accept"})
    assert answer.status_code == 409
    assert "a second person must agree" in answer.text


def test_a_blocked_case_says_who_agreed_first(context, client, grey) -> None:
    number = seed.put(context, [seed.image_file(grey)], outcome="BLOCK")
    row = {"verdict_id": number, "account": "bert", "action": "accept", "comment": "", "at": 1.0}
    context.journal.write(lambda c: c.execute(insert(reviews).values(**row)).rowcount)
    assert "bert agreed first" in client("radiologist").get(f"/cases/{number}").text
    assert "first was bert" in client("radiologist").get("/queue").text


def test_there_is_no_case_slice_or_heat_map_that_there_is_not(context, client, grey) -> None:
    number = seed.put(context, [seed.image_file(grey)])
    one = client("radiologist")
    assert one.get("/cases/999").status_code == 404
    assert one.get(f"/api/cases/{number}/slices/1").status_code == 404
    answer = one.get(f"/api/cases/{number}/heatmaps/0")
    assert (answer.status_code, answer.json()["detail"]) == (404, "this case has no model")
    assert one.get(f"/api/cases/{number}/heatmaps/0?method=shap").status_code == 404
    assert one.get(f"/api/cases/{number}/heatmaps/0?method=guess").status_code == 422


def test_words_from_a_file_are_escaped_on_the_page(context, client, grey) -> None:
    number = seed.put(context, [seed.image_file(grey, SeriesDescription="<script>alert(1)</script>")])
    page = client("radiologist").get(f"/cases/{number}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
