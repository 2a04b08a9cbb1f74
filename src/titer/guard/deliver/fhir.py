"""FHIR R4 over HTTP: a resource is put under an id that follows from its verdict, so that twice is once (G2)."""

from __future__ import annotations

import json
from urllib.parse import quote

from titer.guard.deliver.http import Client, accepted
from titer.guard.deliver.resources import SYSTEM, resource
from titer.guard.deliver.sender import Parcel

_NO_OWN_IDS = 405
_HEADERS = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}


class FHIRSender:
    """Sends to a FHIR server: `address` is its base URL."""

    def __init__(self, client: Client) -> None:
        """Take a client of the destination."""
        self._client = client

    def send(self, parcel: Parcel) -> str:
        """Put a resource (update as create); a server that gives ids itself is asked by identifier instead."""
        assert parcel.body is not None
        made = resource(parcel.kind, parcel.body)
        kind, name = made["resourceType"], made["id"]
        status, _ = self._client.send("PUT", f"/{kind}/{name}", json.dumps(made).encode(), _HEADERS)
        if status == _NO_OWN_IDS:
            where = quote(f"{SYSTEM}|{name}", safe="")
            content = json.dumps({key: value for key, value in made.items() if key != "id"}).encode()
            status, _ = self._client.send("PUT", f"/{kind}?identifier={where}", content, _HEADERS)
        accepted(status)
        return ""

    def rest(self) -> None:
        """Idle connections close by themselves."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
