"""The threat level on the dashboard: shown to all, set by administrators."""

from __future__ import annotations

from sqlalchemy import select

from titer.guard.store.tables import threat_level


def test_an_admin_sets_the_level_and_everybody_sees_who_did(context, client, events) -> None:
    admin = client("admin")
    assert "By settings." in admin.get("/dashboard").text
    assert admin.post("/threat-level", data={"level": "high"}).headers["location"] == "/dashboard"
    with context.engine.connect() as connection:
        row = connection.execute(select(threat_level)).one()
    assert (row.level, row.account) == ("high", "one-admin")
    assert events()[-1]["type"]["code"] == "110100"
    page = client("auditor").get("/dashboard").text
    assert '<span class="tag BLOCK">high</span>' in page
    assert "By one-admin" in page
    assert 'action="/threat-level"' not in page, "an auditor sets nothing"
    assert "titer_threat_level 2.0" in client("service").get("/metrics").text


def test_lowering_it_is_an_alert_and_the_settings_come_back(context, client, events) -> None:
    admin = client("admin")
    admin.post("/threat-level", data={"level": "raised"})
    admin.post("/threat-level", data={"level": "default"})
    assert events()[-1]["type"]["code"] == "110113"
    with context.engine.connect() as connection:
        assert connection.execute(select(threat_level)).first() is None
    assert admin.post("/threat-level", data={"level": "panic"}).status_code == 422
