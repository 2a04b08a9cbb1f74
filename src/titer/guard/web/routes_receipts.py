"""Receipts: signed statements of what was received of a study, to download."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse

from titer.core.errors import SpecError
from titer.guard.audit.events import Kind
from titer.guard.checks.receipts import study_receipt
from titer.guard.web.site import Site

UID = Annotated[str, Query(min_length=1, max_length=64, pattern=r"^[0-9.]+$")]


def router(site: Site) -> APIRouter:
    """Return the routes."""
    made, context = APIRouter(tags=["receipts"]), site.context

    @made.get("/receipts", dependencies=site.gate("receipt.read"), response_class=JSONResponse)
    def receipt(request: Request, study: UID) -> JSONResponse:
        """Return the signed receipt of a study: UIDs, digests, times and verdicts, no patient data."""
        try:
            with context.engine.connect() as connection:
                manifest = study_receipt(connection, context.signer, study, context.clock())
        except SpecError as error:
            raise HTTPException(404, str(error)) from None
        site.note(request, Kind.ACCESSED, "R", {"study": study}, {"what": "receipt"})
        disposition = f'attachment; filename="receipt-{study}.json"'
        return JSONResponse(manifest, headers={"Content-Disposition": disposition})

    return made
