"""The audit chain: each row's digest holds the one before it, and signed checkpoints hold the chain.

digest_n = SHA-256(digest_{n-1} | n | canonical JSON of the event). A row that is edited, deleted, moved or put between
breaks it. Rows cut off its end are shown by the last checkpoint, and a database rolled back to an old copy by the file
of checkpoints, which stands outside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from titer.guard.keys import Signer, signed
from titer.guard.store.prepared import Prepared
from titer.guard.store.tables import audit, audit_head, checkpoints

GENESIS = "0" * 64
_HEAD = 1
# Made once: to build a statement costs more than to run it, and every object that comes in writes a row.
_LAST = Prepared(select(audit_head.c.seq, audit_head.c.digest).with_for_update())
_ADD = Prepared(insert(audit))
_MOVE = Prepared(
    update(audit_head).where(audit_head.c.id == _HEAD).values(seq=bindparam("to"), digest=bindparam("link"))
)


def canonical(event: Mapping[str, Any]) -> str:
    """Return JSON with sorted keys and no blanks: the same text for the same event."""
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def link(previous: str, seq: int, event: str) -> str:
    """Return the digest of a row."""
    return hashlib.sha256(f"{previous}\n{seq}\n{event}".encode()).hexdigest()


def append(connection: Connection, event: Mapping[str, Any], at: float) -> int:
    """Add an event in the caller's transaction, and return its number, from 1 on."""
    head = _LAST.rows(connection, {})
    seq, previous = head[0] if head else (0, GENESIS)
    text = canonical(event)
    digest = link(previous, seq + 1, text)
    _ADD.run(connection, {"seq": seq + 1, "at": at, "event": text, "digest": digest})
    if not head:
        connection.execute(insert(audit_head).values(id=_HEAD, seq=1, digest=digest))
    else:
        _MOVE.run(connection, {"to": seq + 1, "link": digest})
    return int(seq) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed statement that the chain had `seq` rows and ended in `digest`."""

    seq: int
    digest: str
    at: float
    signature: str

    @property
    def content(self) -> bytes:
        """What is signed."""
        return canonical({"seq": self.seq, "digest": self.digest, "at": self.at}).encode()


def checkpoint(connection: Connection, signer: Signer, at: float) -> Checkpoint | None:
    """Sign the chain's end in the caller's transaction; None where no row came since the last checkpoint."""
    head = connection.execute(select(audit_head.c.seq, audit_head.c.digest)).first()
    if head is None or connection.execute(select(checkpoints.c.seq).where(checkpoints.c.seq == head.seq)).first():
        return None
    unsigned = Checkpoint(seq=int(head.seq), digest=str(head.digest), at=at, signature="")
    made = Checkpoint(seq=unsigned.seq, digest=unsigned.digest, at=at, signature=signer.sign(unsigned.content))
    connection.execute(
        insert(checkpoints).values(seq=made.seq, digest=made.digest, at=made.at, signature=made.signature)
    )
    return made


def keep(file: Path, made: Checkpoint) -> None:
    """Append a checkpoint to the file outside the database, one JSON object a line."""
    line = {"seq": made.seq, "digest": made.digest, "at": made.at, "signature": made.signature}
    with file.open("a", encoding="utf-8") as stream:
        stream.write(canonical(line) + "\n")


def kept(file: Path) -> list[Checkpoint]:
    """Return the checkpoints of the file; none where it is not there."""
    if not file.exists():
        return []
    return [Checkpoint(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line]


def problems(connection: Connection, public: bytes, outside: list[Checkpoint]) -> Iterator[str]:
    """Yield what is wrong with the chain, nothing where it is whole; reads row by row.

    Args:
        connection: to the database.
        public: the verifying key, PEM.
        outside: checkpoints that were kept outside the database.
    """
    inside = [Checkpoint(**row._mapping) for row in connection.execute(select(checkpoints))]
    wanted: dict[int, set[str]] = {}
    for one in (*inside, *outside):
        if not signed(public, one.content, one.signature):
            yield f"the checkpoint at row {one.seq} is not signed by this guard's key"
        wanted.setdefault(one.seq, set()).add(one.digest)
    previous, last = GENESIS, 0
    rows = connection.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.seq))
    for row in rows:
        if row.seq != last + 1:
            yield f"rows {last + 1} to {row.seq - 1} are missing"
        if link(previous, row.seq, row.event) != row.digest:
            yield f"row {row.seq} does not follow from the row before it: one of them was changed, moved or put in"
        if wanted.pop(row.seq, {row.digest}) != {row.digest}:
            yield f"row {row.seq} is not the one that was signed"
        previous, last = row.digest, row.seq
    for seq in sorted(wanted):
        yield (
            f"the chain ends at row {last}, but was signed with {seq} rows: some were cut off, or an old copy restored"
        )
