"""Transport security of deliveries: both sides show a certificate of the agreed authority, or nothing is sent."""

import ssl

import pytest
import trustme
from pynetdicom import AE, StoragePresentationContexts, evt
from tests.guard.deliver.peers import QUICK, Faulty, data_bytes, destination, until

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")
"""pynetdicom drops the socket of a failed connection without closing it; the interpreter closes it at once."""


def keep(home, authority, name="guard"):
    """Write a client's certificate and the authority into a guard's folder; returns its TLS settings."""
    made = authority.issue_cert("titer.example")
    made.private_key_pem.write_to_path(home.keys / f"{name}.key")
    made.cert_chain_pems[0].write_to_path(home.keys / f"{name}.pem")
    return f'[destinations.tls]\ncertificate = "keys/{name}.pem"\nkey = "keys/{name}.key"\nauthorities = "keys/ca.pem"'


def pacs(authority, own):
    """Start a storage server that asks for a certificate of `authority`, and shows one of `own`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    peer = Faulty()
    ae = AE(ae_title="PACS")
    ae.supported_contexts = StoragePresentationContexts
    handlers = [(evt.EVT_C_STORE, peer.on_store)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context)
    peer.address = f"127.0.0.1:{server.socket.getsockname()[1]}"
    return server, peer


@pytest.mark.parametrize("wrong", ["nobody", "server", "client"])
def test_an_object_goes_over_tls_and_only_to_a_peer_of_the_agreed_authority(wrong, make_guard, home, ct):
    agreed, other = trustme.CA(), trustme.CA()
    agreed.cert_pem.write_to_path(home.keys / "ca.pem")
    tls = keep(home, other if wrong == "client" else agreed)
    server, peer = pacs(agreed, other if wrong == "server" else agreed)
    try:
        guard = make_guard(destination("pacs", "dicom", peer.address, f"{QUICK}\n{tls}"))
        guard.receive(ct, "pacs")
        guard.start()
        if wrong == "nobody":
            guard.settled()
            assert [data for _, data in peer.stored] == [data_bytes(ct)]
        else:
            until(lambda: guard.items()[0].attempts >= 2)
            assert guard.items()[0].state == "waiting"
            assert peer.stored == []
            guard.stop()
    finally:
        server.shutdown()
