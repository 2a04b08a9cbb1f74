"""Storage commitment: an object is committed when it is where its route sends it (PS3.4, annex J)."""

import threading
import time
from collections.abc import Callable

from dicom_peers import CT, EXPLICIT, Raw, body, element, pdv, slice_of, uid, unit
from pydicom import Dataset, Sequence
from pynetdicom import AE, build_role, evt
from sqlalchemy import update

from titer.guard.deliver.queue import OBJECT, Item, enqueue
from titer.guard.receive.component import Receiver
from titer.guard.store.tables import objects, outbox

COMMITMENT, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


class Modality:
    """A sender that asks for commitment, and takes reports on either kind of association."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Dataset]] = []
        self.came = threading.Event()
        self.entity = AE(ae_title="CT1")
        self.entity.add_requested_context(CT, EXPLICIT)
        self.entity.add_requested_context(COMMITMENT)
        self.entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.socket.getsockname()[1]

    def _take(self, event: evt.Event) -> tuple[int, Dataset]:
        self.reports.append((event.request.EventTypeID, event.event_information))
        self.came.set()
        return 0x0000, Dataset()

    def ask(self, port: int, *instances: tuple[str, str], stay: float = 0.0) -> int:
        """Send an N-ACTION; returns its status. The association stays open for the report up to `stay` seconds."""
        wanted = Dataset()
        wanted.TransactionUID = "1.2.3.4"
        wanted.ReferencedSOPSequence = Sequence()
        for sop_class, instance in instances:
            one = Dataset()
            one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, instance
            wanted.ReferencedSOPSequence.append(one)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        role = build_role(COMMITMENT, scu_role=True)
        association = self.entity.associate(
            "127.0.0.1", port, ae_title="TITER", evt_handlers=handlers, ext_neg=[role]
        )  # fmt: skip
        assert association.is_established
        status, _ = association.send_n_action(wanted, 1, COMMITMENT, INSTANCE)
        if stay:
            self.came.wait(stay)
        association.release()
        return int(status.Status)

    def stop(self) -> None:
        self.server.shutdown()


def _peer(modality: Modality) -> str:
    return f'[[dicom.peers]]\nae_title = "CT1"\naddress = "127.0.0.1:{modality.port}"\n'


def _store(port: int, number: int) -> str:
    one = slice_of(number)
    with Raw(port, calling="CT1") as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one))[0] == 0
    return str(one.SOPInstanceUID)


def test_what_is_durable_is_committed_on_the_same_association_and_what_is_not_is_named(start: Callable) -> None:
    modality = Modality()
    try:
        guard = start(_peer(modality))
        name = _store(guard.port, 1)
        other = _store(guard.port, 2)
        asked = ((CT, name), (CT, "1.2.3.99"), ("1.2.840.10008.5.1.4.1.1.4", other))
        assert modality.ask(guard.port, *asked, stay=20) == 0x0000
        [(kind, report)] = modality.reports
        assert kind == 2
        assert report.TransactionUID == "1.2.3.4"
        assert [one.ReferencedSOPInstanceUID for one in report.ReferencedSOPSequence] == [name]
        assert {str(one.ReferencedSOPInstanceUID): one.FailureReason for one in report.FailedSOPSequence} == {
            "1.2.3.99": 0x0112,
            other: 0x0119,
        }
    finally:
        modality.stop()


def test_a_report_comes_on_an_association_of_its_own_where_the_first_is_over(start: Callable) -> None:
    modality = Modality()
    try:
        guard = start(_peer(modality))
        name = _store(guard.port, 1)
        assert modality.ask(guard.port, (CT, name)) == 0x0000
        assert modality.came.wait(20)
        [(kind, report)] = modality.reports
        assert kind == 1
        assert "FailedSOPSequence" not in report
    finally:
        modality.stop()


def test_an_object_with_a_destination_is_committed_when_that_has_it(start: Callable) -> None:
    modality = Modality()
    pacs = '[[destinations]]\nname = "pacs"\nkind = "dicom"\naddress = "127.0.0.1:1"\nae_title = "P"\n'
    try:
        guard = start(_peer(modality) + pacs, route='[[routes]]\nname = "all"\nimages = ["pacs"]\n')
        name = _store(guard.port, 1)
        assert modality.ask(guard.port, (CT, name)) == 0x0000
        [row] = guard.rows(objects)
        item = Item(destination="pacs", kind=OBJECT, subject=name, digest=row.digest, path=row.path)
        guard.context.journal.write(lambda c: enqueue(c, item, 0.0))
        time.sleep(1.0)
        assert modality.reports == []
        guard.context.journal.write(lambda c: c.execute(update(outbox).values(state="delivered")))
        assert modality.came.wait(20)
        assert modality.reports[0][0] == 1
    finally:
        modality.stop()


def test_a_blocked_object_is_never_committed(start: Callable) -> None:
    modality = Modality()
    try:
        guard = start(_peer(modality))
        name = _store(guard.port, 1)
        guard.context.journal.write(lambda c: c.execute(update(objects).values(state="quarantined")))
        assert modality.ask(guard.port, (CT, name), stay=20) == 0x0000
        assert modality.reports[0][1].FailedSOPSequence[0].FailureReason == 0x0110
    finally:
        modality.stop()


def test_a_request_survives_a_restart(start: Callable) -> None:
    modality = Modality()
    pacs = '[[destinations]]\nname = "pacs"\nkind = "dicom"\naddress = "127.0.0.1:1"\nae_title = "P"\n'
    try:
        guard = start(_peer(modality) + pacs, route='[[routes]]\nname = "all"\nimages = ["pacs"]\n')
        name = _store(guard.port, 1)
        assert modality.ask(guard.port, (CT, name)) == 0x0000
        guard.receiver.stop()
        [row] = guard.rows(objects)
        item = Item(destination="pacs", kind=OBJECT, subject=name, digest=row.digest, path=row.path)
        guard.context.journal.write(lambda c: enqueue(c, item, 0.0))
        guard.context.journal.write(lambda c: c.execute(update(outbox).values(state="delivered")))
        again = Receiver(guard.context, port=0)
        again.start()
        assert modality.came.wait(20)
        again.stop()
        assert modality.reports[0][0] == 1
    finally:
        modality.stop()


def test_a_broken_request_is_refused(guard) -> None:
    contexts = ((COMMITMENT, EXPLICIT),)
    command = element(0x0003, uid(COMMITMENT)) + element(0x0100, b"\x30\x01") + element(0x0110, b"\1\0")
    command += element(0x0800, b"\1\0") + element(0x1001, uid(INSTANCE)) + element(0x1008, b"\1\0")
    with Raw(guard.port) as peer:
        assert peer.associate(contexts) == 2
        peer.send(unit(4, pdv(1, 3, command) + pdv(1, 2, b"\x08\0\x95\x11UI\x04\0../x")))
        assert peer.status()[0] == 0xC000
    assert guard.files() == []
