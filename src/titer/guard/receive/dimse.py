"""Command sets of DIMSE messages (PS3.7, section 6.3 and annex E): implicit little endian, group 0000 only."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from titer.guard.checks.light import valid_uid
from titer.guard.receive.pdu import Violation
from titer.guard.receive.status import Status

COMMAND_BYTES = 16 << 10
"""Longest command set that is read."""
_HEADER = struct.Struct("<HHI")
_NO_DATA = 0x0101
_COMMENT = 64


class Field(IntEnum):
    """Command Field (0000,0100)."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130


_RESPONSE = 0x8000
_ANSWERED_BY_PEERS = (_RESPONSE | Field.N_EVENT_REPORT_RQ,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request of a peer; `affected` are SOP class and instance, empty where it names none."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data: bool
    action_type: int | None


def parse(content: bytes) -> Command:
    """Parse a command set; Violation where it is none, or lacks what its field requires."""
    elements = _elements(content)
    field, data_set_type = _number(elements, 0x0100), _number(elements, 0x0800)
    response = field in _ANSWERED_BY_PEERS
    command = Command(
        field=field,
        message_id=_number(elements, 0x0120 if response else 0x0110) if field != Field.C_CANCEL_RQ else 0,
        sop_class_uid=_uid(elements, 0x0003 if field == Field.N_ACTION_RQ else 0x0002),
        sop_instance_uid=_uid(elements, 0x1001 if field == Field.N_ACTION_RQ else 0x1000),
        has_data=data_set_type != _NO_DATA,
        action_type=_number(elements, 0x1008) if field == Field.N_ACTION_RQ else None,
    )
    needs_data = field in (Field.C_STORE_RQ, Field.N_ACTION_RQ)
    if needs_data and not (command.has_data and command.sop_class_uid and command.sop_instance_uid):
        raise Violation("a request without its SOP instance", Violation.INVALID_VALUE)
    if field in (Field.C_ECHO_RQ, Field.C_CANCEL_RQ) and command.has_data:
        raise Violation("a request with a data set that it never has", Violation.INVALID_VALUE)
    return command


def _elements(content: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    at, before = 0, -1
    while at < len(content):
        if at + _HEADER.size > len(content):
            raise Violation("a command set that is cut off", Violation.INVALID_VALUE)
        group, element, length = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        if group != 0 or element <= before or at + length > len(content):
            raise Violation("a command set that is none", Violation.INVALID_VALUE)
        elements[element] = content[at : at + length]
        at, before = at + length, element
    return elements


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise Violation(f"a command set without (0000,{element:04x})", Violation.INVALID_VALUE)
    return int.from_bytes(value, "little")


def _uid(elements: dict[int, bytes], element: int) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ").decode("latin-1")
    if value and not valid_uid(value):
        raise Violation("a command set with a UID that is none", Violation.INVALID_VALUE)
    return value


def response(command: Command, status: Status, comment: str = "") -> bytes:
    """Return the command set that answers a request; a comment holds no patient data."""
    elements: dict[int, bytes] = {
        0x0100: _short(_RESPONSE | command.field),
        0x0120: _short(command.message_id),
        0x0800: _short(_NO_DATA),
        0x0900: _short(status),
    }
    if command.sop_class_uid:
        elements[0x0002] = _padded(command.sop_class_uid.encode(), b"\0")
    if command.sop_instance_uid:
        elements[0x1000] = _padded(command.sop_instance_uid.encode(), b"\0")
    if command.action_type is not None:
        elements[0x1008] = _short(command.action_type)
    if comment:
        elements[0x0902] = _padded(comment[:_COMMENT].encode("ascii", "replace"), b" ")
    return _encoded(elements)


def event_report(sop_class_uid: str, sop_instance_uid: str, message_id: int, event_type: int) -> bytes:
    """Return the command set of an N-EVENT-REPORT-RQ with a data set (PS3.7, section 10.3.1)."""
    return _encoded(
        {
            0x0002: _padded(sop_class_uid.encode(), b"\0"),
            0x0100: _short(Field.N_EVENT_REPORT_RQ),
            0x0110: _short(message_id),
            0x0800: _short(1),
            0x1000: _padded(sop_instance_uid.encode(), b"\0"),
            0x1002: _short(event_type),
        }
    )


def _encoded(elements: dict[int, bytes]) -> bytes:
    body = b"".join(_HEADER.pack(0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return _HEADER.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _short(number: int) -> bytes:
    return number.to_bytes(2, "little")


def _padded(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) & 1)
