"""Heat maps for the reviewer: made for what was flagged or when asked for, kept by input and model."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.judge.instances import route_named
from titer.guard.judge.messages import Ask, WorkerFailed
from titer.guard.judge.order import in_order
from titer.guard.judge.workers import Workers, workers_of
from titer.guard.store.tables import objects, verdicts

FOLDER = "explanations"
_PNG = b"\x89PNG\r\n\x1a\n"


def heatmap(context: Context, verdict_id: int, index: int) -> Path:
    """Return the PNG of Grad-CAM over one image of a verdict: as the model saw it, in slice order from 0.

    It is kept under the image's and the model's digest, so that asking again costs nothing.

    Raises:
        SpecError: no such verdict or image, a verdict without a model, or one of the inference API, whose inputs are
            not kept.
        WorkerFailed: the worker could not make it: no convolution, no gradients, crash, time-out, another model by now.
    """
    row, image = _asked_for(context, verdict_id, index)
    path = context.home.root / FOLDER / f"{image.digest}-{row.model_digest[:32]}.png"
    if path.is_file():
        return path
    route = route_named(context, row.route)
    if route is None or route.model is None:
        raise SpecError(f"verdict {verdict_id}: the route {row.route} has no model any more")
    with workers_of(context) as workers:
        _keep(path, _made(workers, route.model, row, image))
    return path


def ahead(context: Context, workers: Workers, verdict_id: int) -> None:
    """Make the heat map of the image that was flagged, before anybody asks; what cannot be made is left."""
    del workers  # shared: `heatmap` asks the same ones
    with context.engine.connect() as connection:
        scores = connection.execute(select(verdicts.c.scores).where(verdicts.c.id == verdict_id)).scalar_one()
    index = max((int(one["index"]) for one in scores.values() if one["score"] > one["threshold"]), default=0)
    try:
        heatmap(context, verdict_id, index)
    except (SpecError, WorkerFailed):
        return


def _asked_for(context: Context, verdict_id: int, index: int) -> tuple[Row[Any], Row[Any]]:
    with context.engine.connect() as connection:
        row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id)).first()
        if row is None:
            raise SpecError(f"verdict = {verdict_id} is not known")
        if row.subject_kind != "series" or row.model_digest is None:
            raise SpecError(f"verdict {verdict_id} has no heat map: only series that a model judged have one")
        mine = objects.c.series_instance_uid == row.subject
        judged = objects.c.received_at <= row.created_at
        images = in_order(
            connection.execute(select(objects).where(mine, judged, objects.c.state.in_(("checked", "judged"))))
        )
    if not 0 <= index < len(images):
        raise SpecError(f"index = {index}: allowed are 0 to {len(images) - 1}")
    return row, images[index]


def _made(workers: Workers, model: str, row: Row[Any], image: Row[Any]) -> bytes:
    answer, facts = workers.worker(model).ask(Ask(files=(image.path,), digests=(image.digest,), explain=0))
    if facts.model_digest != row.model_digest:
        raise WorkerFailed("another model stands there now: its heat map would explain nothing of this verdict")
    png = base64.b64decode(answer.png or "", validate=True)
    if not png.startswith(_PNG):
        raise WorkerFailed("the worker's heat map is no PNG")
    return png


def _keep(path: Path, png: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(png)
    partial.replace(path)
