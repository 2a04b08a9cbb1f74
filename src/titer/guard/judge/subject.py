"""What a verdict on a series was about: its images, in the order in which the judge saw them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from titer.guard.context import Context
from titer.guard.judge.frames import frames_of
from titer.guard.judge.order import in_order
from titer.guard.store.tables import objects


def images_of(connection: Connection, verdict: Row[Any]) -> list[Row[Any]]:
    """Return the rows of the objects of a series' verdict that are still there, in slice order."""
    mine = objects.c.series_instance_uid == verdict.subject
    judged = objects.c.received_at <= verdict.created_at
    return in_order(connection.execute(select(objects).where(mine, judged, objects.c.state.in_(("checked", "judged")))))


def inputs_of(context: Context, images: list[Row[Any]]) -> list[tuple[Row[Any], int]]:
    """Return (object, frame) of each input of the model, numbered as scores and findings number them."""
    most = context.settings.judge.frames
    return [(image, frame) for image in images for frame in range(frames_of(Path(image.path), most))]
