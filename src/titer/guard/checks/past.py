"""What the guard saw before: other objects of the same UID, the patients of a study, what is usual for a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from sqlalchemy import Connection, insert, select, update

from titer.guard.keys import pseudonym
from titer.guard.store.tables import baselines, objects

_LONGEST = 128


class Past(Protocol):
    """What a rule may ask."""

    def keyed(self, *parts: str) -> str:
        """Return the keyed digest of an identity: a patient (id, issuer), or a device."""
        ...

    def same_uid(self, sop_uid: str) -> list[tuple[str, str | None]]:
        """Return (digest, pixel digest) of every object that came with this SOP instance UID, this one included."""
        ...

    def patients(self, study_uid: str) -> set[str]:
        """Return the keyed digests of the patients that objects of this study were of."""
        ...

    def baseline(self, device: str, attribute: str) -> Mapping[str, int]:
        """Return how many series of a device had which value of an attribute."""
        ...


class NoPast:
    """A guard that saw nothing yet, or a check outside a guard."""

    def keyed(self, *parts: str) -> str:
        """Return the parts under a key that everyone knows."""
        return pseudonym(b"", *parts)

    def same_uid(self, sop_uid: str) -> list[tuple[str, str | None]]:
        """Return nothing."""
        del sop_uid
        return []

    def patients(self, study_uid: str) -> set[str]:
        """Return nothing."""
        del study_uid
        return set()

    def baseline(self, device: str, attribute: str) -> Mapping[str, int]:
        """Return nothing."""
        del device, attribute
        return {}


class DatabasePast:
    """The past as the guard's database holds it; answers about devices are kept for as long as the object lives."""

    def __init__(self, connection: Connection, identity: bytes) -> None:
        """Take a connection to read by, and the secret of keyed digests."""
        self._connection = connection
        self._identity = identity
        self._devices: dict[str, dict[str, dict[str, int]]] = {}

    def keyed(self, *parts: str) -> str:
        """Return the keyed digest of an identity (RFC 2104)."""
        return pseudonym(self._identity, *parts)

    def same_uid(self, sop_uid: str) -> list[tuple[str, str | None]]:
        """Return what came with this SOP instance UID; evidence in quarantine speaks not against what came first."""
        columns = select(objects.c.digest, objects.c.pixel_digest)
        found = columns.where(objects.c.sop_instance_uid == sop_uid, objects.c.state != "quarantined")
        return [(str(row.digest), row.pixel_digest) for row in self._connection.execute(found)]

    def patients(self, study_uid: str) -> set[str]:
        """Return whose objects came in this study; those in quarantine do not speak for it."""
        whose = select(objects.c.patient).distinct()
        found = whose.where(objects.c.study_instance_uid == study_uid, objects.c.state != "quarantined")
        return {str(row.patient) for row in self._connection.execute(found) if row.patient is not None}

    def baseline(self, device: str, attribute: str) -> Mapping[str, int]:
        """Return what is usual for a device."""
        if device not in self._devices:
            known: dict[str, dict[str, int]] = {}
            columns = (baselines.c.attribute, baselines.c.value, baselines.c.count)
            for name, value, seen in self._connection.execute(select(*columns).where(baselines.c.device == device)):
                known.setdefault(str(name), {})[str(value)] = int(seen)
            self._devices[device] = known
        return self._devices[device].get(attribute, {})


def count(connection: Connection, device: str, values: Iterable[tuple[str, str]]) -> None:
    """Add one series' values, (attribute, value) each, to a device's baseline, in the caller's transaction."""
    for attribute, value in sorted({(attribute[:64], value[:_LONGEST]) for attribute, value in values}):
        key = {"device": device, "attribute": attribute, "value": value}
        same = [baselines.c[name] == one for name, one in key.items()]
        done = connection.execute(update(baselines).where(*same).values(count=baselines.c.count + 1))
        if not done.rowcount:
            connection.execute(insert(baselines).values(**key, count=1))
