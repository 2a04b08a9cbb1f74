"""The README's table: each job in one row, over every model and budget of the job."""

from __future__ import annotations

from collections.abc import Sequence

from attack_bench.jobs import JOBS
from attack_bench.results import Result
from attack_bench.subjects import Facts
from attack_bench.tables import Cells

HEAD: Cells = ("attack", "points", "CPU time / fastest peer's", "stronger or equal", "weaker: by at most")
_AS_MUCH = 0.95
_PER_CENT = 0.01


def summary_row(name: str, found: Sequence[tuple[Facts, str, Sequence[Result]]]) -> Cells | None:
    """Return one row, or None where a job has no peer that ends.

    A point is one model at one budget. Of Titer's attacks the first in the job's table counts. The fastest peer is the
    fastest of those that win at least 95 % of the rows that Titer wins; the strength is held against every peer: rows
    left right, or the median change, of which a hundredth more counts as equal.
    """
    points = [_point(results) for _, _, results in found]
    known = [point for point in points if point is not None]
    if not known:
        return None
    shares = [share for share, _ in known]
    worse = [gap for _, gap in known if gap > 0]
    unit = "rows" if "none" not in JOBS[name].levels else "% of the change"
    return (
        JOBS[name].title.split(":")[0].split(" (")[0],
        str(len(known)),
        f"{min(shares):.2f} to {max(shares):.2f}" if len(known) > 1 else f"{shares[0]:.2f}",
        f"{len(known) - len(worse)} of {len(known)}",
        f"{max(worse):.0f} {unit}" if worse else "",
    )


def _point(results: Sequence[Result]) -> tuple[float, float] | None:
    """Return Titer's share of the fastest peer's time, and by how much it is weaker than the strongest peer."""
    done = [one for one in results if one.error is None and one.won is not None]
    ours = next((one for one in done if str(one.record["contestant"]).startswith("titer")), None)
    peers = [one for one in done if not str(one.record["contestant"]).startswith("titer")]
    if ours is None or not peers:
        return None
    assert ours.won is not None
    rivals = [one for one in peers if one.won is not None and int(one.won.sum()) >= _AS_MUCH * int(ours.won.sum())]
    return ours.cpu / min(one.cpu for one in rivals or peers), _gap(ours, peers)


def _gap(ours: Result, peers: Sequence[Result]) -> float:
    """Return how many rows more the strongest peer wins, or by how many per cent its median change is smaller."""
    if ours.distance is None:
        return max(
            float(one.won.sum() - ours.won.sum()) for one in peers if one.won is not None and ours.won is not None
        )
    least = min(one.distance for one in peers if one.distance is not None)
    gap = ours.distance / least - 1
    return 100 * gap if gap > _PER_CENT else 0.0
