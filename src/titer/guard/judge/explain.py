"""Heat maps for the reviewer, and for the archive where a route wants them: kept by image, frame, model and method."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from titer.core.errors import SpecError, unknown
from titer.guard.context import Context
from titer.guard.deliver import queue
from titer.guard.deliver.permit import RELEASED
from titer.guard.deliver.results import HeatMap
from titer.guard.judge.instances import route_named
from titer.guard.judge.messages import Ask, WorkerFailed
from titer.guard.judge.subject import images_of, inputs_of
from titer.guard.judge.workers import Workers, workers_of
from titer.guard.settings import EXPLAINERS
from titer.guard.store.tables import verdicts

FOLDER = "explanations"
MOST_SENT = 16
"""Heat maps that go with one result; those of the images with the highest scores first."""
_PNG = b"\x89PNG\r\n\x1a\n"
Deliver = Callable[[Context, Connection, int, list[HeatMap]], Any]


def heatmap(context: Context, verdict_id: int, index: int, method: str | None = None) -> Path:
    """Return the PNG of a heat map over one input of a verdict: as the model saw it, in slice order from 0.

    It is kept under the image's and the model's digest, its frame and method, so that asking again costs nothing.

    Args:
        context: the guard.
        verdict_id: which verdict.
        index: which input: an image, or a frame of one.
        method: `gradcam` or `shap`; by default what the setting `judge.explainer` says.

    Raises:
        SpecError: no such verdict, input or method, a verdict without a model, or one of the inference API, whose
            inputs are not kept.
        WorkerFailed: the worker could not make it: no convolution, no gradients, crash, time-out, another model by now.
    """
    method = context.settings.judge.explainer if method is None else method
    if method not in EXPLAINERS:
        raise unknown("method", method, EXPLAINERS)
    row, image, frame = _asked_for(context, verdict_id, index)
    path = _path(context, row, image, frame, method)
    if path.is_file():
        return path
    route = route_named(context, row.route)
    if route is None or route.model is None:
        raise SpecError(f"verdict {verdict_id}: the route {row.route} has no model any more")
    ask = Ask(
        files=(image.path,), digests=(image.digest,), explain=frame, method=method, frames=context.settings.judge.frames
    )
    with workers_of(context) as workers:
        _keep(path, _made(workers, route.model, row, ask))
    return path


def ahead(context: Context, workers: Workers, verdict_id: int) -> None:
    """Make the heat map of the image that was flagged, before anybody asks; what cannot be made is left."""
    del workers  # shared: `heatmap` asks the same ones
    with context.engine.connect() as connection:
        scores = connection.execute(select(verdicts.c.scores).where(verdicts.c.id == verdict_id)).scalar_one()
    above = [one for one in scores.values() if one["score"] > one["threshold"]] or list(scores.values())
    index = max((int(one["index"]) for one in above), default=0)
    try:
        heatmap(context, verdict_id, index)
    except (SpecError, WorkerFailed):
        return


def kept(context: Context, verdict_id: int) -> list[HeatMap]:
    """Return the heat maps of a verdict that were made, where its route sends them; none where it does not."""
    with context.engine.connect() as connection:
        row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id)).first()
        route = None if row is None else route_named(context, row.route)
        if row is None or route is None or not route.heatmaps or row.subject_kind != "series" or not row.model_digest:
            return []
        images = images_of(connection, row)
    found = []
    for place, (image, frame) in enumerate(inputs_of(context, images)):
        for method in EXPLAINERS:
            path = _path(context, row, image, frame, method)
            if path.is_file():
                found.append((place, _sent_as(path, image, frame, method)))
    first = {int(one["index"]) for one in row.scores.values()}
    return [one for _, one in sorted(found, key=lambda pair: pair[0] not in first)][:MOST_SENT]


def follow(context: Context, verdict_id: int, deliver: Deliver) -> None:
    """Queue the heat maps of a result that left already, made after its verdict; none of what is held (G4)."""
    maps = kept(context, verdict_id)
    if not maps:
        return

    def step(connection: Connection) -> None:
        state = connection.execute(select(verdicts.c.state).where(verdicts.c.id == verdict_id)).scalar_one()
        if state in RELEASED:
            deliver(context, connection, verdict_id, maps)

    context.journal.write(step)
    context.bell.ring(queue.BELL)


def _sent_as(path: Path, image: Row[Any], frame: int, method: str) -> HeatMap:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return HeatMap(path=path, sop_instance_uid=image.sop_instance_uid, digest=digest, frame=frame, method=method)


def _path(context: Context, verdict: Row[Any], image: Row[Any], frame: int, method: str) -> Path:
    name = f"{image.digest}-{verdict.model_digest[:32]}-{frame}-{method}.png"
    return context.home.root / FOLDER / name


def _asked_for(context: Context, verdict_id: int, index: int) -> tuple[Row[Any], Row[Any], int]:
    with context.engine.connect() as connection:
        row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id)).first()
        if row is None:
            raise SpecError(f"verdict = {verdict_id} is not known")
        if row.subject_kind != "series" or row.model_digest is None:
            raise SpecError(f"verdict {verdict_id} has no heat map: only series that a model judged have one")
        images = images_of(connection, row)
    inputs = inputs_of(context, images)
    if not 0 <= index < len(inputs):
        raise SpecError(f"index = {index}: allowed are 0 to {len(inputs) - 1}")
    return row, *inputs[index]


def _made(workers: Workers, model: str, row: Row[Any], ask: Ask) -> bytes:
    answer, facts = workers.worker(model).ask(ask)
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
