"""The parts of the hospital case study that need no hospital: figures, readers, files, whole grey levels, the page."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread

from titer.core.errors import SpecError
from titer.core.record import Samples
from titer.guard.checks.instance import check_instance
from titer.guard.checks.past import NoPast
from titer.guard.judge.bundle import InputPart
from titer.guard.judge.inputs import image_rows
from titer.guard.operate.casestudy.attacker import Endless, whole
from titer.guard.operate.casestudy.files import files
from titer.guard.operate.casestudy.measure import Reading, figures, latency, reviewed
from titer.guard.operate.casestudy.models import chosen
from titer.guard.operate.casestudy.plan import Settings, check
from titer.guard.operate.casestudy.report import beside, lines, write
from titer.threats.goals import AnyError


def _images(count: int = 3, side: int = 33) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(0)).float()


def test_an_answer_that_is_no_tumour_or_none_at_all_misses_a_tumour_and_another_tumour_does_not() -> None:
    said = [0, 1, 2, 0, None]
    truths = [0, 1, 1, 2, 3]
    found = figures([Reading(truth=truth, said=one) for truth, one in zip(truths, said, strict=True)])
    assert found["accuracy"]["count"] == 2
    assert (found["sensitivity"]["count"], found["sensitivity"]["of"]) == (2, 4)
    assert found["fnr"]["share"] == 0.5
    assert found["fnr"]["low"] < 0.5 < found["fnr"]["high"]


def test_what_is_wrong_and_held_is_not_wrong_at_the_end_until_the_reader_says_so_too() -> None:
    held, passed = Reading(truth=1, said=0, flagged=True), Reading(truth=1, said=0)
    assert figures([held, passed])["released_wrong"]["count"] == 1
    misread = Reading(truth=1, said=0, flagged=True, reviewed=True)
    assert figures([misread, passed])["released_wrong"]["count"] == 2


def test_figures_of_a_part_without_tumours_have_no_sensitivity() -> None:
    assert figures([Reading(truth=0, said=0)])["sensitivity"]["share"] is None


def test_a_reader_who_is_always_right_corrects_what_was_held_and_nothing_else() -> None:
    readings = [Reading(truth=1, said=0, flagged=True), Reading(truth=1, said=0)]
    found = reviewed(readings, 4, skill=1.0, seed=1, condition="clean")
    assert [one.said for one in found] == [1, 0]


def test_an_imperfect_reader_errs_on_what_the_model_had_right_too() -> None:
    found = reviewed([Reading(truth=2, said=2, flagged=True)] * 2000, 4, skill=0.9, seed=1, condition="clean")
    wrong = [one.said for one in found if not one.right]
    assert 140 <= len(wrong) <= 260
    assert set(wrong) == {0, 1, 3}


def test_an_imperfect_reader_errs_elsewhere_in_each_condition_and_there_again_when_it_is_repeated() -> None:
    held = [Reading(truth=2, said=2, flagged=True)] * 2000
    labels = ("clean", "FGSM 8/255", "clean")
    first, other, again = (reviewed(held, 4, skill=0.9, seed=1, condition=label) for label in labels)
    assert first == again
    errors, others = ({place for place, one in enumerate(read) if not one.right} for read in (first, other))
    # Independent draws share one error in ten of them (expected 20 of 200); one stream for all would share every one.
    assert len(errors & others) < len(errors) / 3


def test_latency_is_in_milliseconds() -> None:
    assert latency([0.1, 0.2, 0.3])["p50"] == pytest.approx(200.0)
    assert latency([]) is None


def test_files_are_valid_mr_images_that_no_check_of_the_guard_finds_fault_with(tmp_path: Path) -> None:
    for one in files(_images(), "clean", 1):
        (tmp_path / one.name).write_bytes(one.content)
        faults = [found for found in check_instance(tmp_path / one.name, NoPast()) if found.outcome != "PASS"]
        assert faults == []


def test_the_model_reads_exactly_the_grey_levels_that_were_sent() -> None:
    images = _images(side=32)
    contract = InputPart(kind="image", shape=(1, 32, 32), unit="grey levels", value_range=(0.0, 255.0))
    for image, one in zip(images, files(images, "clean", 1), strict=True):
        np.testing.assert_allclose(image_rows(one.content, contract, 1)[0][0].numpy(), image.numpy(), atol=1e-3)


def test_no_two_conditions_or_images_share_a_uid() -> None:
    every = [one for condition in ("clean", "attacked") for one in files(_images(), condition, 1)]
    assert len({one.series for one in every} | {one.object_ for one in every}) == 2 * len(every)
    assert len({dcmread(BytesIO(one.content)).PatientID for one in every}) == 3


def test_values_that_eight_bits_cannot_store_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bits"):
        files(_images() + 0.5, "clean", 1)


def test_rounding_keeps_the_budget_and_the_range() -> None:
    x = torch.tensor([0.0, 100.0, 255.0]).view(1, 1, 1, 3)
    found = whole(x + torch.tensor([-2.55, 2.55, 2.55]).view(1, 1, 1, 3), x, 2.55)
    assert found.flatten().tolist() == [0.0, 102.0, 255.0]
    assert float((whole(x + 8, x, 8.0) - x).abs().max()) == 8.0


def test_an_attacker_does_not_stop_at_the_first_success() -> None:
    logits, y = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    assert bool(AnyError().won(logits, y))
    assert not bool(Endless(inner=AnyError()).won(logits, y))
    assert torch.equal(Endless(inner=AnyError()).loss(logits, y), AnyError().loss(logits, y))


def test_one_image_of_each_patient_is_sent_and_the_classes_in_turn() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    patients = ("a", "a", "b", "c", "d", "e", "f", "g")
    part = Samples(x=torch.zeros(8, 1), y=y, ids=tuple("12345678"), patients=patients)
    rows = chosen(part, 6, 3)
    assert len({patients[row] for row in rows}) == 6
    assert sorted(int(y[row]) for row in rows) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"images": 2}, "--images = 2: allowed is 4 to 300"), ({"side": 8}, "--side"), ({"epochs": 0}, "--epochs")],
)
def test_a_setting_out_of_range_is_named_with_what_is_allowed(changed: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=said):
        check(Settings(folder=tmp_path / "new", **changed))


def test_a_folder_that_holds_something_and_a_missing_program_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SpecError, match="is not empty"):
        check(Settings(folder=tmp_path))
    monkeypatch.setattr("titer.guard.operate.casestudy.plan.which", lambda *_, **__: None)
    with pytest.raises(SpecError, match="storescu is not installed"):
        check(Settings(folder=tmp_path / "new"))


def _results() -> dict:
    measured = figures([Reading(truth=1, said=1), Reading(truth=0, said=1), Reading(truth=1, said=0, flagged=True)])
    labels = ("clean", "FGSM 8/255", "BIM 8/255", "FGSM 0.01 range", "BIM 0.01 range")
    names = ("guard, every layer off", "+ adversarial training", "+ monitors")
    bare = {"name": "bare model, no guard", "measured": "x", "conditions": {"clean": measured}, "size_bytes": 10,
            "judging_ms": None, "memory_mib": {"guard": None, "worker": None}}  # fmt: skip
    rows = [
        {"name": name, "measured": "x", "conditions": dict.fromkeys(labels, measured), "size_bytes": 1000 + place,
         "latency_ms": {"p50": 250.0, "p99": 290.0, "n": 3},
         "judging_ms": {"p50": 50.0 + 40 * place, "p99": 90.0, "n": 3}, "memory_mib": {"guard": 200.0, "worker": 100.0},
         "rules": {"clean": {"detector: <shift>": 1}}, "saliency_drift": {labels[1]: 0.25}}
        for place, name in enumerate(names)
    ]  # fmt: skip
    accuracy = measured["accuracy"]
    return {
        "settings": {"images": 3, "epochs": 1, "side": 32, "seed": 1}, "classes": ["none", "tumour"], "sent": [1, 2],
        "masking": {"plain": accuracy, "masked": accuracy}, "seconds": 90.0, "rows": [bare, *rows],
    }  # fmt: skip


def test_the_page_stands_alone_and_shows_each_row_with_its_interval(tmp_path: Path) -> None:
    page = write(tmp_path / "index.html", _results()).read_text()
    for expected in ("bare model, no guard", "+ monitors", "33.3 %", "92.3 %", "0.250", "detector: &lt;shift&gt; 1"):
        assert expected in page
    assert "<script" not in page
    assert "http://" not in page
    assert "src=" not in page


def test_the_published_case_stands_beside_what_was_measured_and_each_row_has_a_line() -> None:
    results = json.loads(json.dumps(_results()))
    table = {what: (theirs, ours) for what, theirs, ours in beside(results)}
    assert table["latency"] == ("1.8x", "2.60x (judging with every layer beside judging with none)")
    assert table["accuracy, clean"] == ("92.3 %", "33.3 %")
    said = list(lines(results))
    assert len(said) == len(results["rows"])
    assert said[0] == "bare model, no guard: accuracy clean 33.3 %; clean flagged 33.3 %"
