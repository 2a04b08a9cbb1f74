"""The audit log for an audit record repository: DICOM's XML (PS3.15, A.5.1) over syslog with TLS (RFC 5424, 5425)."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from sqlalchemy import Connection, select

from titer.core.errors import SpecError
from titer.guard.store.tables import audit

_PRIORITY = 13 * 8 + 5  # facility "log audit", severity "notice" (RFC 5424, section 6.2.1; IHE ITI TF-2, 3.20)
_SCHEME = "syslog+tls"
PORT = 6514


def message(event: Mapping[str, Any]) -> bytes:
    """Return an AuditEvent of the chain as an AuditMessage of PS3.15, table A.5.1."""
    root = ElementTree.Element("AuditMessage")
    identification = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode=event["action"],
        EventDateTime=event["recorded"],
        EventOutcomeIndicator=event["outcome"],
    )
    kind = event["type"]
    code = {"csd-code": kind["code"], "codeSystemName": "DCM", "originalText": kind["display"]}
    ElementTree.SubElement(identification, "EventID", code)
    for agent in event["agent"]:
        attributes = {
            "UserID": agent["who"]["identifier"]["value"],
            "UserIsRequestor": "true" if agent["requestor"] else "false",
        }
        network = agent.get("network")
        if network:
            attributes |= {"NetworkAccessPointID": network["address"], "NetworkAccessPointTypeCode": network["type"]}
        ElementTree.SubElement(root, "ActiveParticipant", attributes)
    ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=event["source"]["observer"]["display"])
    for entity in event.get("entity", ()):
        _object(root, entity)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _object(root: ElementTree.Element, entity: Mapping[str, Any]) -> None:
    name = entity.get("what", {}).get("identifier", {}).get("value", "-")
    part = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=name,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    ElementTree.SubElement(part, "ParticipantObjectIDTypeCode", {"csd-code": "110180", "codeSystemName": "DCM"})
    for detail in entity.get("detail", ()):
        ElementTree.SubElement(part, "ParticipantObjectDetail", type=detail["type"], value=detail["valueString"])


def framed(event: Mapping[str, Any], host: str) -> bytes:
    """Return an event as one syslog message with its length before it (RFC 5425, section 4.3)."""
    header = f"<{_PRIORITY}>1 {event['recorded']} {host} titer-guard - IHE+RFC-3881 - "
    content = header.encode() + b"\xef\xbb\xbf" + message(event)
    return str(len(content)).encode() + b" " + content


def export(connection: Connection, after: int, address: str, authorities: Path) -> int:
    """Send the rows after one to a repository, and return the number of the last row that was sent.

    Args:
        connection: to the database.
        after: the last row that was sent before.
        address: `syslog+tls://HOST:PORT`.
        authorities: certificates that the repository's may be signed by, PEM.

    Raises:
        SpecError: the address is no such one.
        OSError: the repository does not answer, or is not the one it says it is.
    """
    parts = urlsplit(address)
    if parts.scheme != _SCHEME or not parts.hostname:
        raise SpecError(f"audit.syslog = {address!r} is not allowed: {_SCHEME}://HOST:PORT")
    context = ssl.create_default_context(cafile=str(authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    last = after
    with (
        socket.create_connection((parts.hostname, parts.port or PORT), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as stream,
    ):
        for seq, event in _rows(connection, after):
            stream.sendall(framed(event, socket.gethostname()))
            last = seq
        # A connection closed with something of the peer's unread is reset, and the peer may lose the end of what came.
        with suppress(OSError):
            stream.unwrap()
    return last


def _rows(connection: Connection, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
    chosen = select(audit.c.seq, audit.c.event).where(audit.c.seq > after).order_by(audit.c.seq)
    for row in connection.execution_options(yield_per=500).execute(chosen):
        yield int(row.seq), json.loads(row.event)
