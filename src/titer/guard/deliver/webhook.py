"""Webhooks: signed JSON events without patient data (HMAC-SHA-256, by the Standard Webhooks specification 1.0)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from titer.guard.deliver.http import Client, accepted
from titer.guard.deliver.sender import Parcel


class WebhookSender:
    """Posts events to a URL; `Idempotency-Key` and `webhook-id` are the same whenever the same event is sent."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        """Take a client of the destination, whose secret signs, and the time."""
        self._client = client
        self._clock = clock

    def send(self, parcel: Parcel) -> str:
        """Post an event."""
        assert parcel.body is not None
        content = json.dumps(event(parcel.body), sort_keys=True).encode()
        at = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": parcel.key,
            "webhook-id": parcel.key,
            "webhook-timestamp": at,
            "webhook-signature": signature(self._client.secret, parcel.key, at, content),
        }
        status, _ = self._client.send("POST", "", content, headers)
        accepted(status)
        return ""

    def rest(self) -> None:
        """Idle connections close by themselves."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def signature(secret: bytes, key: str, at: str, content: bytes) -> str:
    """Return the signature of an event: `v1,` and base64 of HMAC-SHA-256 over `id.timestamp.body`."""
    signed = hmac.new(secret, b".".join((key.encode(), at.encode(), content)), hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def event(body: Any) -> dict[str, Any]:
    """Return what is told about a verdict: no name, no UID, nothing that the model said."""
    told = ("verdict", "revision", "route", "outcome", "state", "urgency", *_DIGESTS)
    data = {name: body[name] for name in told}
    data["findings"] = [{"rule": one["rule"], "outcome": one["outcome"]} for one in body["findings"]]
    at = datetime.fromtimestamp(body["created_at"], UTC).isoformat(timespec="milliseconds")
    return {"type": f"verdict.{body['state']}", "timestamp": at, "data": data}


_DIGESTS = ("input_digest", "model_digest", "bundle_version")
