"""An address as a QR code (ISO/IEC 18004), drawn as SVG that a strict policy of contents allows."""

from __future__ import annotations

import io

import segno
from markupsafe import Markup

_MODULE = 5
"""Pixels of a module: whole ones, so that each is as wide as the others."""
_QUIET = 4
"""Light modules around the symbol (ISO/IEC 18004, section 5.3.8)."""


def drawn(address: str) -> Markup:
    """Return the QR code of an address as inline SVG: black on white whatever the page's colours, no script or style.

    Level M restores 15 % of damaged codewords. The symbol holds the secret: it is never stored or sent elsewhere.
    """
    stream = io.BytesIO()
    segno.make_qr(address, error="m").save(
        stream, kind="svg", xmldecl=False, svgns=False, scale=_MODULE, border=_QUIET, dark="#000", light="#fff",
        svgclass=None, lineclass=None, nl=False,
    )  # fmt: skip
    return Markup(stream.getvalue().decode())  # noqa: S704 - segno draws it; no text of a person stands in it
