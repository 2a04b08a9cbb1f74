"""Results leave only with their verdict (G4), as reports, resources and events that real peers take."""

import base64
import hashlib
import hmac
import json
from io import BytesIO

import pydicom
import pytest
from sqlalchemy import text, update
from tests.guard.deliver.peers import SERIES, STUDY, Faulty, destination, faulty

from titer.core.errors import SpecError
from titer.guard.deliver.component import Deliverer
from titer.guard.deliver.results import NotReleased, announce, release
from titer.guard.store.tables import verdicts


def change(guard, statement):
    guard.context.journal.write(lambda connection: connection.execute(statement))


@pytest.mark.parametrize("state", ["held", "rejected", "overridden"])
def test_g4_a_result_that_is_not_released_is_not_even_queued(make_guard, ct, state):
    guard = make_guard(destination("pacs", "dicom", "127.0.0.1:1"))
    guard.receive(ct)
    with pytest.raises(NotReleased, match=state):
        guard.run(release, guard.judge(SERIES, state=state, outcome="FLAG"))
    with pytest.raises(NotReleased, match="no verdict 99"):
        guard.run(release, 99)
    assert guard.items() == []


@pytest.mark.parametrize(
    ("values", "said", "alerts"),
    [
        ({"input_digest": "c" * 64}, "input_digest differ", 1),
        ({"model_digest": "c" * 64}, "model_digest differ", 1),
        ({"bundle_version": "chest-2"}, "bundle_version differ", 1),
        ({"model_digest": None}, "model_digest differ", 1),
        ({"state": "held"}, "the verdict is held", 0),
        ({"state": "rejected"}, "the verdict is rejected", 0),
    ],
)
def test_g4_a_result_whose_verdict_changed_after_it_was_queued_does_not_leave(
    make_guard, ct, web, values, said, alerts
):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address), destination("records", "fhir", web.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        change(guard, update(verdicts).values(values))
        guard.start()
        items = guard.settled("withheld", count=2)
        assert all(said in item.last_error for item in items)
        assert len(guard.audited('"110113"')) == 2 * alerts
        assert (peer.stored, web.requests) == ([], [])


def test_g4_a_result_that_was_edited_in_the_outbox_does_not_leave(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    change(guard, text("UPDATE outbox SET body = replace(body, 'pneumonia', 'normal')"))
    guard.start()
    guard.settled("withheld")
    assert len(guard.audited('"110113"')) == 1
    assert web.requests == []


def test_g4_a_verdict_that_a_late_image_has_overtaken_sends_nothing_any_more(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    guard.judge(SERIES, revision=1, state="held", outcome="FLAG", input_digest="d" * 64)
    guard.start()
    (item,) = guard.settled("withheld")
    assert item.last_error == "superseded by revision 1 of the verdict"
    assert web.requests == []


def test_g4_a_report_on_an_image_that_was_changed_on_the_disk_is_not_written(make_guard, ct):
    with faulty(Faulty()) as peer:
        guard = make_guard(destination("pacs", "dicom", peer.address))
        guard.receive(ct)
        guard.run(release, guard.judge(SERIES))
        for path in guard.context.home.spool.rglob("*"):
            if path.is_file():
                path.write_bytes(ct[:-1] + b"\1")
        guard.start()
        guard.settled("dead")
        assert len(guard.audited('"110113"')) == 1
        assert peer.stored == []


def test_fhir_gets_a_preliminary_report_and_the_same_one_final_once_it_is_accepted(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES)
    guard.run(release, verdict)
    guard.start()
    guard.settled()
    change(guard, update(verdicts).values(state="accepted"))
    guard.run(release, verdict)
    guard.settled(count=3)
    first, last, task = (json.loads(body) for _, _, _, body in web.requests)
    assert (first["status"], last["status"], task["status"]) == ("preliminary", "final", "completed")
    assert first["id"] == last["id"]
    assert len(web.kept) == 2
    assert last["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY}"
    assert "pneumonia (probability 0.930)" in last["conclusion"]


def test_an_older_state_of_a_resource_never_overwrites_a_newer_one(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES)
    guard.run(release, verdict)
    change(guard, update(verdicts).values(state="accepted"))
    guard.run(release, verdict)
    guard.start()
    guard.settled()
    guard.settled("withheld")
    guard.settled(kind="task")
    told = [(json.loads(body)["resourceType"], json.loads(body)["status"]) for _, _, _, body in web.requests]
    assert told == [("DiagnosticReport", "final"), ("Task", "completed")]


def test_a_held_verdict_asks_for_a_review_and_tells_nothing_of_the_result(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES, state="held", outcome="FLAG", urgency=1)
    guard.run(announce, verdict)
    guard.start()
    guard.settled()
    change(guard, update(verdicts).values(state="rejected"))
    guard.run(announce, verdict)
    guard.settled(count=2)
    asked, closed = (json.loads(body) for _, _, _, body in web.requests)
    assert (asked["resourceType"], asked["status"], asked["priority"]) == ("Task", "requested", "urgent")
    assert (closed["status"], closed["id"]) == ("rejected", asked["id"])
    assert b"pneumonia" not in b"".join(body for _, _, _, body in web.requests)
    assert b"pixel spacing" in web.requests[0][3]


def test_a_request_that_a_late_image_has_overtaken_is_cancelled(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    verdict = guard.judge(SERIES, state="held", outcome="FLAG")
    guard.run(announce, verdict)
    guard.start()
    guard.settled()
    change(guard, update(verdicts).values(state="superseded"))
    guard.judge(SERIES, revision=1, state="held", outcome="FLAG")
    guard.run(announce, verdict)
    guard.settled(count=2)
    asked, closed = (json.loads(body) for _, _, _, body in web.requests)
    assert (closed["status"], closed["id"]) == ("cancelled", asked["id"])


def test_a_fhir_server_that_gives_ids_itself_is_asked_by_identifier(make_guard, ct, web):
    web.refuses_own_ids = True
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    guard.run(release, guard.judge(SERIES))
    guard.start()
    guard.settled()
    (path,) = web.kept
    assert path.startswith("/fhir/DiagnosticReport?identifier=https%3A%2F%2F")
    assert "id" not in json.loads(web.kept[path])


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_left(make_guard, ct, web):
    guard = make_guard(destination("records", "fhir", web.address))
    guard.receive(ct)
    web.answers = [503, 429, 500]
    guard.run(release, guard.judge(SERIES))
    guard.start()
    (item,) = guard.settled()
    assert item.attempts == 4
    web.answers = [422, 422, 422]
    guard.run(announce, guard.judge(SERIES, revision=1, state="held"))
    (dead,) = guard.settled("dead")
    assert dead.last_error == "given up after 3 tries: HTTP status 422"


def test_a_webhook_is_signed_keeps_its_key_when_it_is_sent_again_and_tells_no_patient(make_guard, ct, web):
    guard = make_guard(destination("alarm", "webhook", web.address))
    guard.receive(ct)
    web.answers = [500]
    guard.run(announce, guard.judge(SERIES, state="held", outcome="FLAG"))
    guard.start()
    guard.settled()
    (_, _, first, body), (_, _, again, same) = web.requests
    assert first["Idempotency-Key"] == again["Idempotency-Key"] == first["webhook-id"]
    assert body == same
    signed = f"{first['webhook-id']}.{first['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"hook secret", signed, hashlib.sha256).digest()).decode()
    assert first["webhook-signature"] == f"v1,{expected}"
    assert "Authorization" not in first
    assert json.loads(body)["type"] == "verdict.held"
    read = pydicom.dcmread(BytesIO(ct), stop_before_pixels=True)
    for secret in (str(read.PatientName), read.PatientID, SERIES, STUDY, "pneumonia", "must not leave"):
        assert secret.encode() not in body


@pytest.mark.parametrize(
    ("kind", "address", "more", "said"),
    [
        ("dicom", "pacs", "", "is no host:port"),
        ("fhir", "ftp://pacs/", "", "is no http or https URL"),
        ("fhir", "http://records.example/fhir", "", "other machines need https"),
        ("fhir", "https://h/", 'secret_file = "keys/none"', "cannot be read"),
        ("dicom", "h:1", "[destinations.tls]\ncertificate = 'c'\nkey = 'k'\nauthorities = 'a'", "tls cannot be used"),
    ],
)
def test_a_destination_that_cannot_work_is_named_at_the_start(make_guard, kind, address, more, said):
    guard = make_guard(destination("one", kind, address, more))
    with pytest.raises(SpecError) as error:
        Deliverer(guard.context).start()
    assert said in str(error.value)
    assert "destinations.one" in str(error.value) or "keys/none" in str(error.value)
