"""The outbox's page: what was not delivered and why, and sending it again."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from titer.guard.context import Context
from titer.guard.deliver.queue import BELL, Item, enqueue
from titer.guard.store.tables import outbox
from titer.guard.web import routes_outbox

WHY = "Refused: 0xA900 <data set does not match>"


@pytest.fixture
def items(context: Context) -> dict[str, int]:
    """Put four items into the outbox; returns their numbers by name."""
    made = {
        "dead": ("pacs", "dead"), "withheld": ("pacs", "withheld"), "waiting": ("pacs", "waiting"),
        "other": ("archive", "dead"),
    }  # fmt: skip

    def write(connection: Any) -> None:
        for number, (name, (destination, state)) in enumerate(made.items()):
            item = Item(destination=destination, kind="object", subject=f"1.2.{number}", digest=name, path="/nowhere")
            enqueue(connection, item, context.clock() - 7200)
            mine = update(outbox).where(outbox.c.digest == name)
            connection.execute(mine.values(state=state, attempts=3, last_error=WHY))

    context.journal.write(write)
    with context.engine.connect() as connection:
        return {row.digest: row.id for row in connection.execute(select(outbox.c.digest, outbox.c.id))}


def states(context: Context) -> dict[str, str]:
    with context.engine.connect() as connection:
        return {row.digest: row.state for row in connection.execute(select(outbox.c.digest, outbox.c.state))}


def test_an_admin_sees_what_was_not_delivered_and_why(client, items) -> None:
    page = client("admin").get("/outbox").text
    assert page.count("Refused: 0xA900 &lt;data set does not match&gt;") == 3
    assert "<data set" not in page
    for name, shown in (("dead", True), ("withheld", True), ("other", True), ("waiting", False)):
        assert (f"/outbox/{items[name]}/again" in page) == shown, name
    assert "1.2.0" in page
    assert "image to pacs<br><code>1.2.0</code>" in page
    assert '<td class="number">3</td>' in page
    assert "2 h ago" in page
    assert 'href="/outbox"' in client("admin").get("/dashboard").text


def test_one_destination_is_looked_at_alone(client, items) -> None:
    page = client("admin").get("/outbox", params={"destination": "archive"}).text
    assert f"/outbox/{items['other']}/again" in page
    assert f"/outbox/{items['dead']}/again" not in page
    assert "Nothing was given up or withheld for nobody." in client("admin").get("/outbox?destination=nobody").text


def test_an_item_is_sent_again_and_the_log_says_who_wanted_it(context, client, items, events) -> None:
    heard = context.bell.wait(BELL, -1, 0)
    for name in ("dead", "withheld"):
        assert client("admin").post(f"/outbox/{items[name]}/again").status_code == 303
    assert states(context) == {"dead": "waiting", "withheld": "waiting", "waiting": "waiting", "other": "dead"}
    assert context.bell.wait(BELL, -1, 0) > heard
    last = events()[-1]
    assert last["agent"][0]["who"]["identifier"]["value"] == "one-admin"
    told = {one["type"]: one["valueString"] for one in last["entity"][0]["detail"]}
    assert told == {"what": "retry delivery", "item": str(items["withheld"])}


@pytest.mark.usefixtures("items")
def test_all_that_was_given_up_for_a_destination_is_sent_again_in_one_step(context, client, events) -> None:
    admin = client("admin")
    before, heard = len(events()), context.bell.wait(BELL, -1, 0)
    assert admin.post("/outbox/again", data={"destination": "pacs"}).status_code == 303
    assert context.bell.wait(BELL, -1, 0) > heard
    assert states(context) == {"dead": "waiting", "withheld": "withheld", "waiting": "waiting", "other": "dead"}
    (row,) = events()[before:]
    told = {one["type"]: one["valueString"] for one in row["entity"][0]["detail"]}
    assert told == {"what": "retry delivery", "destination": "pacs", "items": "1"}
    again = admin.post("/outbox/again", data={"destination": "pacs"})
    assert again.status_code == 409
    assert "Nothing that can be sent again is given up for pacs." in again.text


def test_what_waits_is_not_sent_again(context, client, items, events) -> None:
    admin = client("admin")
    before = len(events())
    answer = admin.post(f"/outbox/{items['waiting']}/again")
    assert answer.status_code == 409
    assert f"Item {items['waiting']} is neither given up nor withheld for a destination of the settings." in answer.text
    assert admin.post("/outbox/9999999/again").status_code == 409
    for number in ("0", "99999999999999999999"):
        assert admin.post(f"/outbox/{number}/again").status_code == 422, "no number of an item in any database"
    assert states(context)["waiting"] == "waiting"
    assert len(events()) == before


def test_an_auditor_looks_and_sends_nothing(context, client, items) -> None:
    page = client("auditor").get("/outbox").text
    assert "0xA900" in page
    assert '<form method="post" action="/outbox' not in page
    assert client("auditor").post(f"/outbox/{items['dead']}/again").status_code == 403
    assert client("auditor").post("/outbox/again", data={"destination": "pacs"}).status_code == 403
    assert client("radiologist").get("/outbox").status_code == 403
    assert states(context)["dead"] == "dead"


def test_nothing_is_sent_again_without_the_csrf_token(context, client, items) -> None:
    admin = client("admin")
    del admin.headers["X-CSRF-Token"]
    assert admin.post(f"/outbox/{items['dead']}/again").status_code == 403
    assert admin.post("/outbox/again", data={"destination": "pacs", "csrf": "wrong"}).status_code == 403
    assert states(context)["dead"] == "dead"


def test_nothing_is_sent_again_to_a_destination_that_the_settings_do_not_name(context, client, items) -> None:
    context.journal.write(lambda c: c.execute(update(outbox).values(destination="gone")))
    admin = client("admin")
    page = admin.get("/outbox").text
    assert "not in the settings" in page
    assert "/again" not in page
    assert admin.post(f"/outbox/{items['dead']}/again").status_code == 409
    assert admin.post("/outbox/again", data={"destination": "gone"}).status_code == 409
    assert states(context)["dead"] == "dead"


@pytest.mark.usefixtures("items")
def test_a_page_of_more_than_it_shows_says_so(client, monkeypatch) -> None:
    monkeypatch.setattr(routes_outbox, "_SHOWN", 2)
    assert "The newest 2 of 3." in client("admin").get("/outbox").text
    assert "The newest" not in client("admin").get("/outbox", params={"destination": "archive"}).text


def test_an_empty_outbox_says_that_nothing_is_stuck(client) -> None:
    page = client("admin").get("/outbox").text
    assert "Nothing was sent yet." in page
    assert "Nothing was given up or withheld." in page
