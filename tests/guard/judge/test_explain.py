"""Heat maps: drawn by the worker, kept by input and model, and only of what was judged."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from tests.guard.judge import faults
from tests.guard.judge.scene import receive, verdicts_of
from tests.guard.judge.test_pipeline import _first, _wait

from titer.core.errors import SpecError
from titer.guard.judge.component import Judge
from titer.guard.judge.explain import FOLDER, follow, heatmap, kept
from titer.guard.judge.messages import WorkerFailed
from titer.guard.judge.overlay import drawn
from titer.guard.judge.review import decide
from titer.guard.judge.workers import Workers, share, unshare


def _noise() -> np.ndarray:
    return np.random.default_rng(0).choice([0, 255], size=(28, 28))


def test_a_flagged_image_has_a_heat_map_before_anybody_asks(guard, log, bundle):
    context = guard(model=bundle)
    receive(context, "1.2.3.1", _noise())
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    assert verdict.outcome == "FLAG"
    folder = context.home.root / FOLDER
    _wait(lambda: len(list(folder.glob("*.png"))) == 1)
    path = heatmap(context, verdict.id, 0)
    assert path.parent == folder
    with Image.open(path) as image:
        assert image.size == (504, 504)
    judge.stop()
    before = path.stat().st_mtime_ns
    assert heatmap(context, verdict.id, 0).stat().st_mtime_ns == before


def test_one_of_an_image_that_passed_is_made_when_asked_for_with_no_judge_running(guard, log, bundle):
    context = guard(model=bundle)
    for number in (1, 2):
        receive(context, f"1.2.3.{number}", np.full((28, 28), 90 + number), number=number)
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    judge.stop()
    assert heatmap(context, verdict.id, 1) != heatmap(context, verdict.id, 0)
    with pytest.raises(SpecError, match="index = 2: allowed are 0 to 1"):
        heatmap(context, verdict.id, 2)
    with pytest.raises(SpecError, match="verdict = 99 is not known"):
        heatmap(context, 99, 0)


def test_another_model_draws_no_map_of_a_verdict_that_is_not_its_own(guard, log, bundle):
    context = guard(model=bundle)
    receive(context, "1.2.3.1", np.full((28, 28), 90))
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    judge.stop()
    for path in (context.home.root / FOLDER).glob("*.png"):
        path.unlink()
    workers = Workers(context, faults.well)
    share(context, workers)
    with pytest.raises(WorkerFailed, match="another model"):
        heatmap(context, verdict.id, 0)
    unshare(context)
    workers.stop()
    assert verdicts_of(context)[0].id == verdict.id


def test_shap_is_asked_for_by_name_and_kept_beside_grad_cam(guard, log, bundle):
    context = guard(model=bundle)
    receive(context, "1.2.3.1", np.full((28, 28), 90))
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    cam, shap = heatmap(context, verdict.id, 0), heatmap(context, verdict.id, 0, "shap")
    with pytest.raises(SpecError, match="method"):
        heatmap(context, verdict.id, 0, "lime")
    judge.stop()
    assert cam != shap
    assert cam.read_bytes() != shap.read_bytes()
    assert heatmap(context, verdict.id, 0, "shap") == shap


def test_the_setting_chooses_the_explainer(guard, log, bundle):
    context = guard(model=bundle, more='[judge]\nexplainer = "shap"\n')
    receive(context, "1.2.3.1", _noise())
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    path = heatmap(context, verdict.id, 0)
    judge.stop()
    assert path.name.endswith("-shap.png")


@pytest.mark.parametrize("wanted", [True, False])
def test_heat_maps_follow_a_result_that_passed_where_the_route_wants_them(guard, log, wanted):
    context = guard(named=True, tail="heatmaps = true\n" if wanted else "")
    receive(context, "1.2.3.1")
    judge = Judge(context, log.parts(), faults.drawing)
    judge.start()
    verdict = _first(context)
    assert verdict.outcome == "PASS"
    if wanted:
        _wait(lambda: log.captured)
    judge.stop()
    assert [(number, [one.sop_instance_uid for one in maps]) for number, maps in log.captured] == (
        [(verdict.id, ["1.2.3.1"])] if wanted else []
    )


def test_g4_the_heat_map_of_a_held_verdict_stays_until_it_is_accepted(guard, log, bundle):
    context = guard(model=bundle, tail="heatmaps = true\n")
    receive(context, "1.2.3.1", _noise())
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    _wait(lambda: kept(context, verdict.id))
    judge.stop()
    follow(context, verdict.id, log.parts().captures)
    assert (verdict.state, log.captured) == ("held", [])
    decide(context, verdict.id, "ines", "radiologist", "accept", parts=log.parts)
    assert log.released == [verdict.id]
    (maps,) = log.maps
    assert [(one.sop_instance_uid, one.method) for one in maps] == [("1.2.3.1", "gradcam")]
    assert maps[0].digest == hashlib.sha256(maps[0].path.read_bytes()).hexdigest()


def test_the_map_is_drawn_where_it_is_hot_and_nowhere_else():
    grey, heat = np.full((8, 8), 100.0, np.float32), np.zeros((8, 8), np.float32)
    heat[2, 5] = 1.0
    with Image.open(io.BytesIO(drawn(grey, heat, (0.0, 255.0)))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (512, 512, 3)
    assert (pixels[-40:, :40] == 100).all()
    assert pixels[160, 352, 0] > pixels[160, 352, 2] + 20
