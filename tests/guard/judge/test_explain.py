"""Heat maps: drawn by the worker, kept by input and model, and only of what was judged."""

import io

import numpy as np
import pytest
from PIL import Image
from tests.guard.judge import faults
from tests.guard.judge.scene import receive, verdicts_of
from tests.guard.judge.test_pipeline import _first, _wait

from titer.core.errors import SpecError
from titer.guard.judge.component import Judge
from titer.guard.judge.explain import FOLDER, heatmap
from titer.guard.judge.messages import WorkerFailed
from titer.guard.judge.overlay import drawn
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


def test_the_map_is_drawn_where_it_is_hot_and_nowhere_else():
    grey, heat = np.full((8, 8), 100.0, np.float32), np.zeros((8, 8), np.float32)
    heat[2, 5] = 1.0
    with Image.open(io.BytesIO(drawn(grey, heat, (0.0, 255.0)))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (512, 512, 3)
    assert (pixels[-40:, :40] == 100).all()
    assert pixels[160, 352, 0] > pixels[160, 352, 2] + 20
