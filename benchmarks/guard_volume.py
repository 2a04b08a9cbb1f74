"""How long the guard's pages, measures and housekeeping take with a large database; prints a table, asserts nothing.

    python benchmarks/guard_volume.py [--studies 100000] [--days 100]

A database in SQLite is filled as a guard would have left it: studies of four radiographs spread evenly over `--days`
days, one verdict each (of a thousand 950 released, 40 decided by a person, 10 superseded; 40 held in all), six items of
the outbox and ten rows of the audit chain each. Times are CPU and waiting together, the shortest of three; they are set
beside those with a hundredth of the studies in the same days. The audit rows are no chain: nothing here verifies them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert

from titer.guard import keys
from titer.guard.context import Context, opened
from titer.guard.deliver.watch import backlogs, stuck
from titer.guard.home import Home
from titer.guard.operate.keeper import Keeper
from titer.guard.receive.quota import Quotas
from titer.guard.settings import load
from titer.guard.store.tables import audit, audit_head, objects, outbox, series, verdicts
from titer.guard.web.cases import Filter, choices, neighbours, queue
from titer.guard.web.measures import Measures
from titer.guard.web.trends import Stretch, numbers
from titer.guard.web.upkeep import DAY, alerts, upkeep

KEPT_DAYS = 30
HELD = 40
IMAGES = 4
EVENT = '{"resourceType":"AuditEvent","type":{"code":"110104"},"recorded":"2026-01-01T00:00:00Z","text":"' + "-" * 400
SETTINGS = """[[destinations]]
name = "pacs"
kind = "dicom"
address = "127.0.0.1:4242"
ae_title = "PACS"

[spool]
sender_mib_per_day = 100000
"""
_AT_ONCE = 2000
"""Studies whose rows are written in one transaction."""


def main() -> None:
    """Fill a small and a large database, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=100)
    given = parser.parse_args()
    counts = (max(given.studies // 100, 100), given.studies)
    columns = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            context = guard(Path(folder))
            fill(context, count, given.days)
            columns.append({name: timed(asked) for name, asked in questions(context).items()})
            context.close()
    print(f"Milliseconds, with {counts[0]:,} and {counts[1]:,} studies over {given.days} days.\n")
    print("| asked | few studies | many | ratio |\n| --- | --- | --- | --- |")
    for name, few in columns[0].items():
        many = columns[1][name]
        print(f"| {name} | {1000 * few:.1f} | {1000 * many:.1f} | {many / few:.1f} |")


def guard(folder: Path) -> Context:
    """Make a guard that nothing runs in."""
    home = Home(folder)
    keys.make(home.keys)
    home.settings.write_text(SETTINGS)
    return opened(home, load(home))


def fill(context: Context, count: int, days: int) -> None:
    """Write the rows of so many studies; the newest came just now."""
    now = context.clock()
    step = days * DAY / count
    with context.engine.begin() as connection:
        connection.execute(audit_head.delete())
        connection.execute(insert(audit_head).values(id=1, seq=10 * count, digest="0" * 64))
    for first in range(0, count, _AT_ONCE):
        rows: dict[Table, list[dict[str, Any]]] = {}
        for place in range(first, min(first + _AT_ONCE, count)):
            for table, row in study(place, now - (count - place) * step, now, held=place >= count - HELD):
                rows.setdefault(table, []).append(row)
        with context.engine.begin() as connection:
            for table, many in rows.items():
                connection.execute(insert(table), many)


def study(place: int, at: float, now: float, *, held: bool) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Yield the rows of one study."""
    uid, route = f"1.2.826.0.1.3680043.8.498.{place}", f"route-{place % 3}"
    kept = at >= now - KEPT_DAYS * DAY
    for number in range(IMAGES):
        yield objects, {
            "sop_instance_uid": f"{uid}.1.{number}", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
            "study_instance_uid": uid, "series_instance_uid": f"{uid}.1", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "digest": f"{place:060x}{number:04x}", "pixel_digest": f"{place:064x}", "patient": f"{place:064x}",
            "modality": ("CR", "DX", "MR")[place % 3], "size": 200_000, "path": f"/spool/{place}/{number}.dcm",
            "route": route, "calling_ae": f"MODALITY{place % 7}", "peer": "10.0.0.7", "received_at": at,
            "state": "judged" if kept else "deleted",
        }  # fmt: skip
    yield series, {
        "series_instance_uid": f"{uid}.1", "study_instance_uid": uid, "route": route, "objects": IMAGES,
        "modality": ("CR", "DX", "MR")[place % 3], "first_at": at, "last_at": at, "state": "judged", "revision": 1,
    }  # fmt: skip
    drawn = place % 1000
    decided = "released" if drawn < 950 else "accepted" if drawn < 990 else "superseded"
    scores = {name: {"score": 0.4, "threshold": 0.7} for name in ("low-confidence", "shift", "reconstruction")}
    yield verdicts, {
        "id": place + 1, "subject_kind": "series", "subject": f"{uid}.1", "revision": 0, "route": route,
        "input_digest": f"{place:064x}", "outcome": "PASS" if decided == "released" and not held else "FLAG",
        "scores": scores, "state": "held" if held else decided, "created_at": at + 2.0, "result": {"scores": [1.0]},
    }  # fmt: skip
    for number in range(IMAGES + 2):
        own = number < IMAGES
        yield outbox, {
            "destination": "pacs", "kind": "object" if own else ("task", "structured-report")[number % 2],
            "subject": f"{uid}.1.{number}" if own else f"{uid}.1", "digest": f"{place:060x}{number:04x}",
            "verdict_id": None if own else place + 1, "body": None if own else {"text": "-" * 600}, "attempts": 1,
            "state": "waiting" if held and own else "delivered", "due_at": at, "created_at": at,
        }  # fmt: skip
    for number in range(10):
        yield audit, {"seq": 10 * place + number + 1, "at": at, "event": EVENT + '"}', "digest": "0" * 64}


def questions(context: Context) -> dict[str, Callable[[], object]]:
    """Return what is asked, by name."""
    now = context.clock()
    stretches = {"a day": DAY, "a week": 7 * DAY, "30 days": 30 * DAY}
    measures = Measures(context)
    keeper = Keeper(context)

    def ask(run: Callable[[Connection], object]) -> Callable[[], object]:
        def asked() -> object:
            with context.engine.connect() as connection:
                return run(connection)

        return asked

    return {
        **{
            f"dashboard, {name}": ask(lambda c, width=width: numbers(c, Stretch(start=now - width, end=now)))  # type: ignore[misc]
            for name, width in stretches.items()
        },
        "dashboard, disk and senders": ask(lambda c: upkeep(c, context)),
        "dashboard, alerts of a day": ask(lambda c: alerts(c, now - DAY)),
        "queue, held": ask(lambda c: queue(c, Filter(state="held"))),
        "queue, held, of one modality": ask(lambda c: queue(c, Filter(state="held", modality="MR"))),
        "queue, all": ask(lambda c: queue(c, Filter(state=None))),
        "queue, its choices": ask(choices),
        "case, its neighbours": ask(lambda c: neighbours(c, 1)),
        "outbox, its page": ask(lambda c: (backlogs(c), stuck(c))),
        "measures for Prometheus": measures.text,
        "a sender's quota after a restart": lambda: Quotas(context).take("MODALITY1", 1),
        "housekeeping, nothing to delete": keeper.tidy,
    }


def timed(asked: Callable[[], object]) -> float:
    """Return the shortest of three, seconds."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        asked()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
