"""Who may open an association: titles, addresses, certificates, and how many at once."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections import Counter
from dataclasses import dataclass

from titer.core.errors import SpecError
from titer.guard.receive.pdu import APPLICATION_CONTEXT, Request
from titer.guard.settings import DICOMSettings, PeerSettings

_PERMANENT, _TRANSIENT = 1, 2
_USER, _PRESENTATION = 1, 3


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is rejected: the codes of A-ASSOCIATE-RJ (PS3.8, section 9.3.4), and words for the log."""

    result: int
    source: int
    reason: int
    words: str

    @property
    def alarming(self) -> bool:
        """Whether it may be an attack; a guard at its limit is not."""
        return self.result == _PERMANENT


NO_CONTEXT = Rejection(_PERMANENT, _USER, 2, "another application context")
NOT_CALLED = Rejection(_PERMANENT, _USER, 7, "another called AE title")
UNKNOWN = Rejection(_PERMANENT, _USER, 3, "calling AE title is not on the list")
ELSEWHERE = Rejection(_PERMANENT, _USER, 3, "calling AE title comes from another address than its own")
NO_CERTIFICATE = Rejection(_PERMANENT, _USER, 3, "calling AE title comes without its certificate")
TOO_MANY = Rejection(_TRANSIENT, _PRESENTATION, 2, "too many associations")
CONGESTED = Rejection(_TRANSIENT, _PRESENTATION, 2, "too many associations of this peer")


class Policy:
    """Decides on association requests, and counts the associations that are open.

    Where the settings list no peer, any title may send from this very machine, and none from elsewhere.
    """

    def __init__(self, settings: DICOMSettings) -> None:
        """Resolve the peers' addresses; SpecError names one that cannot be."""
        self._settings = settings
        self._peers = {peer.ae_title.strip(): peer for peer in settings.peers}
        self._hosts = {title: _resolved(peer) for title, peer in self._peers.items()}
        self._open: Counter[tuple[str, str]] = Counter()

    def peer(self, title: str) -> PeerSettings:
        """Return the settings of a peer; the defaults where peers are not listed."""
        return self._peers.get(title) or PeerSettings(ae_title=title)

    def objection(self, asked: Request, host: str, fingerprint: str | None) -> Rejection | None:
        """Return why a request is rejected, None where it is not.

        Args:
            asked: the request.
            host: the address that it came from.
            fingerprint: SHA-256 of the peer's certificate; None without TLS.
        """
        if asked.application_context != APPLICATION_CONTEXT:
            return NO_CONTEXT
        if asked.called_ae != self._settings.ae_title.strip():
            return NOT_CALLED
        return self._stranger(asked.calling_ae, host, fingerprint) or self._crowd(asked.calling_ae, host)

    def _stranger(self, title: str, host: str, fingerprint: str | None) -> Rejection | None:
        if not self._peers:
            return None if _loopback(host) else UNKNOWN
        if title not in self._peers:
            return UNKNOWN
        hosts, pinned = self._hosts[title], self._peers[title].certificate
        if hosts is not None and _plain(host) not in hosts:
            return ELSEWHERE
        if pinned is not None and not (fingerprint and hmac.compare_digest(_hexadecimal(pinned), fingerprint)):
            return NO_CERTIFICATE
        return None

    def _crowd(self, title: str, host: str) -> Rejection | None:
        if self._open.total() >= self._settings.associations:
            return TOO_MANY
        return CONGESTED if self._open[title, host] >= self._settings.associations_per_peer else None

    def enter(self, title: str, host: str) -> None:
        """Count an association."""
        self._open[title, host] += 1

    def leave(self, title: str, host: str) -> None:
        """Count it no more."""
        self._open[title, host] -= 1
        if not self._open[title, host]:
            del self._open[title, host]


def _hexadecimal(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()


def _plain(host: str) -> str:
    """Return an address without the form that IPv6 gives to one of IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _loopback(host: str) -> bool:
    return ipaddress.ip_address(_plain(host)).is_loopback


def split_address(address: str) -> tuple[str, int | None]:
    """Return host and port of HOST, HOST:PORT or [IPv6]:PORT."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, int(port[1:]) if port else None
    host, _, port = address.partition(":")
    if ":" in port:
        return address, None
    return host, int(port) if port else None


def _resolved(peer: PeerSettings) -> frozenset[str] | None:
    if peer.address is None:
        return None
    try:
        host, _port = split_address(peer.address)
        found = socket.getaddrinfo(host, None)
    except (OSError, ValueError):
        raise SpecError(
            f"dicom.peers.{peer.ae_title}.address = {peer.address!r} is not known: give HOST or HOST:PORT"
        ) from None
    return frozenset(_plain(str(entry[4][0])) for entry in found)
