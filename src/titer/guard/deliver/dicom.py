"""C-STORE (PS3.4, annex B): files go as they stand on the disk, in their own transfer syntax and no other (G3)."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context

from titer.core.errors import SpecError
from titer.guard.deliver.sender import Changed, Parcel, Refused, Unreachable
from titer.guard.deliver.tls import client_context
from titer.guard.home import Home
from titer.guard.settings import DestinationSettings

_config.STORE_SEND_CHUNKED_DATASET = True  # the data set's bytes are read from the file: never decoded, never whole
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its messages hold data sets; failures are in the outbox

_MOST_CONTEXTS = 128
_LONGEST_PDU = 131072
_PDUS_WAITING = 8
_SEND_BUFFER = 1 << 18
SUCCESS, COERCED = 0x0000, 0xB000
_WARNINGS = {COERCED: "coerced data elements", 0xB006: "elements discarded", 0xB007: "does not match the SOP class"}
_LATER = range(0xA700, 0xA800)  # out of resources
Syntax = tuple[str, str]
"""SOP class and transfer syntax."""


class _Narrow(queue.Queue[Any]):
    """What waits to be sent, a few PDUs: without, a whole object waits in memory, and its answer times out meanwhile.

    `put` raises queue.Full where nothing was sent for `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(maxsize=_PDUS_WAITING)
        self._seconds = seconds

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, self._seconds if timeout is None else timeout)


class StoreSender:
    """Sends to one application entity over an association that stays open, and is made anew when it has broken."""

    def __init__(self, home: Home, destination: DestinationSettings, calling_ae: str) -> None:
        """Read certificates; connects when there is something to send."""
        host, _, port = destination.address.rpartition(":")
        if not host or not port.isdigit():
            raise SpecError(f"destinations.{destination.name}.address = {destination.address!r} is no host:port")
        self._host, self._port = host.strip("[]"), int(port)
        self._called = destination.ae_title or ""
        self._tls = client_context(home, destination)
        self._seconds = destination.timeout_seconds
        self._ae = AE(ae_title=calling_ae)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._seconds
        self._ae.network_timeout = self._ae.connection_timeout = self._seconds
        self._seen: OrderedDict[Syntax, None] = OrderedDict()
        self._association: Any = None

    def send(self, parcel: Parcel) -> str:
        """Send a file; returns a warning of the peer's, "" where it had none."""
        assert parcel.path is not None
        wanted = _syntax(parcel.path)
        association = self._open(wanted)
        try:
            status = association.send_c_store(parcel.path)
        except (RuntimeError, ValueError, OSError, queue.Full) as error:
            self.close()
            raise Unreachable(f"the association broke, or stands still: {type(error).__name__}") from None
        return self._judged(status)

    def rest(self) -> None:
        """Release the association, as the peer may have few of them to give."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self.close()

    def close(self) -> None:
        """End the association; what hangs in it is broken off."""
        association, self._association = self._association, None
        if association is None:
            return
        if association.is_established:
            association.dul.to_provider_queue = queue.Queue()  # an abort does not wait behind what hangs
            association.abort()
        _shut(association)

    def _open(self, wanted: Syntax) -> Any:
        """Return an association that takes `wanted`."""
        self._seen[wanted] = None
        self._seen.move_to_end(wanted)
        while len(self._seen) > _MOST_CONTEXTS:
            self._seen.popitem(last=False)
        if self._association is not None and not self._association.is_established:
            self.close()
        if self._association is None or not _proposed(self._association, wanted):
            self.close()
            self._association = self._associate()
        if not _accepted(self._association, wanted):
            self.rest()
            self._seen.pop(wanted)  # asked again the next time: a peer may have learnt it meanwhile
            raise Refused("the peer does not take this SOP class in this transfer syntax")
        return self._association

    def _associate(self) -> Any:
        contexts = [build_context(sop_class, transfer) for sop_class, transfer in self._seen]
        association = self._ae.associate(
            self._host,
            self._port,
            contexts=contexts,
            ae_title=self._called,
            max_pdu=_LONGEST_PDU,
            tls_args=None if self._tls is None else (self._tls, self._host),
            evt_handlers=[(evt.EVT_CONN_OPEN, self._prepare)],
        )
        if association.is_established:
            association.dul.to_provider_queue = _Narrow(self._seconds)
            return association
        turned_down = association.rejected_contexts and not association.accepted_contexts
        answer = association.acceptor.primitive
        _shut(association)
        if association.is_rejected:
            reason = "no reason given" if answer is None else answer.reason_str
            raise Unreachable(f"the peer rejected the association: {reason}")
        if turned_down:
            self._seen.clear()
            raise Refused("the peer takes this SOP class in no transfer syntax that its file has")
        raise Unreachable("no association: the peer cannot be reached, does not answer, or its certificate is wrong")

    def _prepare(self, event: Any) -> None:
        """Send small packets at once (40 ms each on many peers), and let no write wait for ever."""
        stream = event.assoc.dul.socket.socket
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # or megabytes are sent, and not there yet
        stream.settimeout(self._seconds)

    def _judged(self, status: Any) -> str:
        """Return a warning, or raise what a status means (PS3.4, table B.2-1; PS3.7, annex C)."""
        if "Status" not in status:
            self.close()
            raise Unreachable("the peer did not answer, or broke off")
        code = int(status.Status)
        if code == SUCCESS:
            return ""
        if code in _WARNINGS:
            return f"status 0x{code:04X}: {_WARNINGS[code]}"
        if code in _LATER:
            raise Unreachable(f"status 0x{code:04X}: out of resources")
        raise Refused(f"status 0x{code:04X}")


def _syntax(path: Path) -> Syntax:
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, OSError) as error:
        raise Changed(f"the file of this item is no DICOM file: {type(error).__name__}") from None


def _proposed(association: Any, wanted: Syntax) -> bool:
    return any(
        (one.abstract_syntax, one.transfer_syntax[0]) == wanted for one in association.requestor.requested_contexts
    )


def _accepted(association: Any, wanted: Syntax) -> bool:
    return any((one.abstract_syntax, one.transfer_syntax[0]) == wanted for one in association.accepted_contexts)


def _shut(association: Any) -> None:
    """Close the socket under an association: a thread that waits in it comes back."""
    stream = getattr(association.dul.socket, "socket", None)
    if stream is None:
        return
    with contextlib.suppress(OSError):  # it may be gone already
        stream.shutdown(socket.SHUT_RDWR)
    stream.close()
