"""Gzip and BGZF (blocked gzip, SAM specification section 4.1), read whole and written the same on every machine."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

from titer.core.errors import Incompatible

_MOST = 2**30
_BLOCK = 0xFF00
_HEAD = struct.Struct("<4BI2BH2BHH")
EOF_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def zipped(content: bytes) -> bool:
    """Return whether the bytes begin as gzip does."""
    return content[:2] == b"\x1f\x8b"


def blocked(content: bytes) -> bool:
    """Return whether the bytes begin as BGZF does: gzip with the extra field BC."""
    return content[:4] == b"\x1f\x8b\x08\x04" and content[12:14] == b"BC"


def unpacked(name: str, content: bytes) -> bytes:
    """Return the bytes, decompressed where they are gzip or BGZF.

    Raises:
        Incompatible: truncated or damaged, or more than a GiB.
    """
    if not zipped(content):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            plain = stream.read(_MOST + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise Incompatible(f"{name} is truncated or damaged gzip ({str(error)[:80]})") from None
    if len(plain) > _MOST:
        raise Incompatible(f"{name} holds more than {_MOST} bytes: too much to hold in memory")
    return plain


def packed(plain: bytes, like: bytes) -> bytes:
    """Return the bytes compressed as `like` is: BGZF, gzip without name and date, or not at all."""
    if blocked(like):
        return bgzf(plain)
    return gzip.compress(plain, mtime=0) if zipped(like) else plain


def bgzf(plain: bytes) -> bytes:
    """Return BGZF: gzip members of at most 64 KiB that each tell their size, and the empty one that ends a file."""
    blocks = [_block(plain[start : start + _BLOCK]) for start in range(0, len(plain), _BLOCK)]
    return b"".join([*blocks, EOF_BLOCK])


def _block(plain: bytes) -> bytes:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = squeeze.compress(plain) + squeeze.flush()
    size = _HEAD.size + len(body) + 8
    if size > 0x10000:  # bytes that do not compress: stored as they are they always fit
        stored = zlib.compressobj(0, zlib.DEFLATED, -15)
        body = stored.compress(plain) + stored.flush()
        size = _HEAD.size + len(body) + 8
    head = _HEAD.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, 0x42, 0x43, 2, size - 1)
    return head + body + struct.pack("<II", zlib.crc32(plain), len(plain))
