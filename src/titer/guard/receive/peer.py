"""Associations that the guard itself opens to those who send to it: reports of storage commitment."""

from __future__ import annotations

from pydicom import Dataset
from pynetdicom import AE, build_role

from titer.guard.receive.policy import split_address
from titer.guard.receive.syntaxes import COMMITMENT, COMMITMENT_INSTANCE
from titer.guard.settings import PeerSettings

_SECONDS = 10


def send_report(title: str, peer: PeerSettings, event_type: int, information: Dataset) -> bool:
    """Send an N-EVENT-REPORT on an association of its own (PS3.4, section J.3.3); whether the peer took it."""
    if peer.address is None:
        return False
    host, port = split_address(peer.address)
    if port is None:
        return False
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _SECONDS
    entity.add_requested_context(COMMITMENT)
    role = build_role(COMMITMENT, scp_role=True)
    association = entity.associate(host, port, ae_title=peer.ae_title, ext_neg=[role])
    if not association.is_established:
        return False
    try:
        status, _reply = association.send_n_event_report(information, event_type, COMMITMENT, COMMITMENT_INSTANCE)
        return bool(status) and status.Status == 0
    except (RuntimeError, ValueError):
        return False
    finally:
        association.release()
