"""Cases for review: what the database says about a verdict, its findings, its objects and who decided so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, func, select

from titer.core.errors import TiterError
from titer.guard.store.tables import findings, objects, reviews, series, verdicts

PAGE = 200
"""Most rows of the queue that one page shows."""
OPEN = "held"
_URGENT = (verdicts.c.urgency.desc(), verdicts.c.created_at, verdicts.c.id)


class NotThere(TiterError):  # noqa: N818 - says what happened
    """There is no such case, slice or file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which cases the queue shows; None stands for all."""

    route: str | None = None
    modality: str | None = None
    outcome: str | None = None
    state: str | None = OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the queue."""

    id: int
    outcome: str
    urgency: int
    created_at: float
    route: str
    modality: str
    objects: int
    reason: str
    state: str
    waits_for: str | None
    """Who accepted a blocked one first: a second person has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One verdict with everything that a reviewer needs; `objects` are rows that the verdict is about."""

    id: int
    verdict: Mapping[str, Any]
    modality: str
    study: str
    findings: tuple[Mapping[str, Any], ...]
    objects: tuple[Mapping[str, Any], ...]
    late: int
    reviews: tuple[Mapping[str, Any], ...]

    @property
    def first_person(self) -> str | None:
        """Who accepted a blocked case that waits for a second person."""
        return first_person(self.verdict, self.reviews)


def queue(connection: Connection, wanted: Filter) -> tuple[list[Line], int]:
    """Return cases, and how many there are: open ones by urgency and age, others and all of them the newest first."""
    query = _filtered(_joined(select(verdicts, series.c.modality, series.c.objects)), wanted)
    count = select(func.count()).select_from(verdicts)
    total = connection.execute(_filtered(_joined(count) if wanted.modality else count, wanted)).scalar_one()
    order = _URGENT if wanted.state == OPEN else (verdicts.c.created_at.desc(), verdicts.c.id.desc())
    rows = connection.execute(query.order_by(*order).limit(PAGE)).all()
    return [_line(connection, row) for row in rows], int(total)


def case(connection: Connection, number: int) -> Case:
    """Return a case; NotThere where there is none."""
    row = connection.execute(select(verdicts).where(verdicts.c.id == number)).first()
    if row is None:
        raise NotThere(f"there is no case {number}")
    verdict = dict(row._mapping)
    found = connection.execute(select(findings).where(findings.c.verdict_id == number).order_by(findings.c.id)).all()
    said = connection.execute(select(reviews).where(reviews.c.verdict_id == number).order_by(reviews.c.id)).all()
    mine = [dict(one._mapping) for one in connection.execute(_objects(verdict)).all()]
    judged = [one for one in mine if one["received_at"] <= row.created_at]
    return Case(
        id=number,
        verdict=verdict,
        modality=mine[0]["modality"] if mine else "",
        study=mine[0]["study_instance_uid"] if mine else "",
        findings=tuple(dict(one._mapping) for one in found),
        objects=tuple(judged),
        late=len(mine) - len(judged),
        reviews=tuple(dict(one._mapping) for one in said),
    )


def neighbours(connection: Connection, number: int) -> tuple[int | None, int | None]:
    """Return the cases before and after one in the queue of open ones."""
    ids = list(connection.execute(select(verdicts.c.id).where(verdicts.c.state == OPEN).order_by(*_URGENT)).scalars())
    if number not in ids:
        return None, (ids[0] if ids else None)
    place = ids.index(number)
    return (ids[place - 1] if place else None), (ids[place + 1] if place + 1 < len(ids) else None)


def choices(connection: Connection) -> dict[str, list[str]]:
    """Return what the queue can be filtered by."""
    return {
        "route": _distinct(connection, verdicts.c.route),
        "modality": _distinct(connection, series.c.modality),
        "outcome": ["FLAG", "BLOCK", "PASS"],
        "state": ["held", "accepted", "overridden", "rejected", "released"],
    }


def first_person(verdict: Mapping[str, Any], said: Any) -> str | None:
    """Return who agreed to release a blocked case that is still held."""
    if verdict["outcome"] != "BLOCK" or verdict["state"] != OPEN:
        return None
    return next((str(one["account"]) for one in said if one["action"] in ("accept", "override")), None)


def _objects(verdict: Mapping[str, Any]) -> Select[Any]:
    kind = objects.c.series_instance_uid if verdict["subject_kind"] == "series" else objects.c.sop_instance_uid
    return select(objects).where(kind == verdict["subject"], objects.c.state != "deleted").order_by(objects.c.id)


def _distinct(connection: Connection, column: Column[str]) -> list[str]:
    """Return the values of a column with an index, from one to the next: DISTINCT would read the whole table."""
    found = select(func.min(column).label("value")).cte("found", recursive=True)
    following = select(func.min(column)).where(column > found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    return list(connection.execute(select(found.c.value).where(found.c.value.is_not(None))).scalars())


def _joined(query: Select[Any]) -> Select[Any]:
    """Join verdicts with their series; an instance's verdict finds it through its object."""
    of_object = (
        select(objects.c.series_instance_uid).where(objects.c.sop_instance_uid == verdicts.c.subject).limit(1)
    ).scalar_subquery()
    joined = (series.c.series_instance_uid == verdicts.c.subject) | (series.c.series_instance_uid == of_object)
    return query.select_from(verdicts.outerjoin(series, joined))


def _filtered(query: Select[Any], wanted: Filter) -> Select[Any]:
    for column, value in (
        (verdicts.c.route, wanted.route),
        (series.c.modality, wanted.modality),
        (verdicts.c.outcome, wanted.outcome),
        (verdicts.c.state, wanted.state),
    ):
        query = query if value is None else query.where(column == value)
    return query


def _line(connection: Connection, row: Row[Any]) -> Line:
    worst = {"BLOCK": 0, "FLAG": 1}
    found = connection.execute(select(findings.c.reason, findings.c.outcome).where(findings.c.verdict_id == row.id))
    reasons = sorted(found.all(), key=lambda one: worst.get(one.outcome, 2))
    said = connection.execute(select(reviews.c.account, reviews.c.action).where(reviews.c.verdict_id == row.id))
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return Line(
        id=row.id,
        outcome=row.outcome,
        urgency=row.urgency,
        created_at=row.created_at,
        route=row.route,
        modality=row.modality or "",
        objects=row.objects or 0,
        reason=reasons[0].reason + more if reasons else "",
        state=row.state,
        waits_for=first_person(dict(row._mapping), [dict(one._mapping) for one in said]),
    )
