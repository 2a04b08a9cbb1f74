"""Objects on disk: a `.part` file while one comes in, then a file named by its digest, durable before it is said to be.

A stored file is the preamble of zeros, `DICM`, file meta information of the guard's own making (the same for the same
object whoever sends it), and the data set's bytes as they came (PS3.10, section 7.1).
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import struct
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from titer.guard.checks.light import Claim
from titer.guard.receive.pdu import IMPLEMENTATION_UID

INCOMING = "incoming"
_MiB = 1 << 20
_SHORT_ELEMENT = struct.Struct("<HH2sH")
_LONG_ELEMENT = struct.Struct("<HH2s2xI")


class TooLarge(Exception):  # noqa: N818 - says what happened
    """The object is longer than the guard takes."""


def preamble(claim: Claim) -> bytes:
    """Return what stands before the data set of a stored file."""
    elements = b"".join(
        (
            _LONG_ELEMENT.pack(2, 1, b"OB", 2) + b"\0\1",
            _uid(0x02, claim.sop_class_uid),
            _uid(0x03, claim.sop_instance_uid),
            _uid(0x10, claim.transfer_syntax_uid),
            _uid(0x12, IMPLEMENTATION_UID),
        )
    )
    return bytes(128) + b"DICM" + _SHORT_ELEMENT.pack(2, 0, b"UL", 4) + len(elements).to_bytes(4, "little") + elements


def _uid(element: int, value: str) -> bytes:
    raw = value.encode() + b"\0" * (len(value) & 1)
    return _SHORT_ELEMENT.pack(2, element, b"UI", len(raw)) + raw


class Part:
    """An object that is coming in; its file is made by the first `append`, and gone after `discard`."""

    def __init__(self, folder: Path, claim: Claim, most_bytes: int) -> None:
        """Make no file yet."""
        self._header = preamble(claim)
        self.start = len(self._header)
        self.size = 0
        self.path = folder / f"{uuid.uuid4().hex}.part"
        self._most = most_bytes
        self._hash = hashlib.sha256()
        self._file = -1
        self._gone = False
        self._lock = threading.Lock()

    def append(self, content: bytes | bytearray) -> None:
        """Write a piece of the data set; OSError where the disk does not take it, TooLarge past the cap."""
        with self._lock:
            if self._gone:
                raise OSError(errno.ECANCELED, "the object was given up")
            if self._file < 0:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._write(self._header)
            if self.size + len(content) > self._most + self.start:
                raise TooLarge
            self._write(content)

    def _write(self, content: bytes | bytearray) -> None:
        self._hash.update(content)
        self.size += len(content)
        left = memoryview(content)
        while left:
            left = left[os.write(self._file, left) :]
        left.release()

    def content(self) -> mmap.mmap:
        """Return a map of what was written; the caller closes it."""
        return mmap.mmap(self._file, self.size, access=mmap.ACCESS_READ)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file, hexadecimal."""
        return self._hash.hexdigest()

    def settle(self) -> None:
        """Return when the bytes are on the disk."""
        os.fsync(self._file)

    def keep(self, path: Path) -> None:
        """Give it its name; a file that stands there has the same bytes. `settle_folder` makes the name durable."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            self.path.replace(path)
            self._close()

    def discard(self) -> None:
        """Remove what is there of it; does nothing once it is kept. Any thread may, while another one appends."""
        with self._lock:
            self._gone = True
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def settle_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Spool:
    """The folder of received objects."""

    def __init__(self, root: Path, free_mib: int) -> None:
        """Make the folders that are not there; `free_mib` is what must stay free on their disk."""
        self.root = root
        self.incoming = root / INCOMING
        self._free = free_mib * _MiB
        self.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)

    def full(self) -> bool:
        """Whether the disk is too full to take one more, or does not answer."""
        try:
            return shutil.disk_usage(self.root).free < self._free
        except OSError:
            return True

    def place(self, digest: str) -> Path:
        """Return where an object of this digest stands."""
        return self.root / digest[:2] / f"{digest}.dcm"

    def sweep(self, missing: Collection[str]) -> None:
        """Remove the `.part` files that an ended process left.

        Args:
            missing: digests of rows without a file. After a loss of power the disk may have kept a row and not the
                new name of its file, which then is still a `.part`: it gets its name.
        """
        for part in self.incoming.glob("*.part"):
            digest = hashlib.sha256(part.read_bytes()).hexdigest() if missing else ""
            if digest in missing:
                place = self.place(digest)
                place.parent.mkdir(mode=0o700, exist_ok=True)
                part.replace(place)
            else:
                part.unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield the digests that files are named by, in order."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(path.stem for path in folder.glob("*.dcm"))

    def strays(self, recorded: Iterable[str]) -> Iterator[Path]:
        """Yield the files that no row records: they were never acknowledged.

        Args:
            recorded: digests of rows, in order.
        """
        rows = iter(recorded)
        row = next(rows, None)
        for digest in self.digests():
            while row is not None and row < digest:
                row = next(rows, None)
            if row != digest:
                yield self.place(digest)
