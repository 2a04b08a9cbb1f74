"""A sender's daily quota: what is past it is refused with 0xA700, and the others are served."""

from collections.abc import Callable

from dicom_peers import Raw, body, slice_of

from titer.guard.receive.quota import DAY, Quotas
from titer.guard.store.tables import audit, objects

QUOTA = "sender_mib_per_day = 1"


def _send(guard, number: int, title: str, side: int = 512) -> tuple[int, str]:
    one = slice_of(number, side=side)
    with Raw(guard.port, calling=title) as peer:
        peer.associate()
        return peer.store(one.SOPInstanceUID, body(one))


def test_a_sender_past_its_quota_is_refused_and_another_is_not(start: Callable) -> None:
    guard = start(QUOTA)
    assert _send(guard, 1, "CT1")[0] == 0
    assert _send(guard, 2, "CT1") == (0xA700, "daily quota of this sender is spent")
    assert _send(guard, 3, "CT1") == (0xA700, "daily quota of this sender is spent")
    assert _send(guard, 4, "CT1", side=16)[0] == 0, "what still fits is taken"
    assert _send(guard, 5, "CT2")[0] == 0
    assert len(guard.rows(objects)) == 3
    assert sum("storage quota spent" in row.event for row in guard.rows(audit)) == 1
    assert not any("part" in name for name in guard.files())


def test_a_restart_does_not_forgive_and_another_day_does(start: Callable) -> None:
    guard = start(QUOTA)
    assert _send(guard, 1, "CT1")[0] == 0
    guard = start(QUOTA)
    assert _send(guard, 2, "CT1")[0] == 0xA700
    now = guard.context.clock()
    tomorrow = Quotas(_at(guard.context, now + DAY))
    assert not Quotas(guard.context).take("CT1", 600_000)
    assert tomorrow.take("CT1", 600_000)


def test_without_a_quota_nothing_is_counted(start: Callable) -> None:
    quotas = Quotas(start().context)
    assert all(quotas.take("CT1", 1 << 40) for _ in range(3))


def _at(context, now: float):
    from dataclasses import replace

    return replace(context, clock=lambda: now)
