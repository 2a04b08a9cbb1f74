"""Dashboard, switches, audit browser, metrics, health, logs, and the colours of the pages."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest
import structlog
from sqlalchemy import select
from tests.guard.web import seed

from titer.guard.store.tables import switches
from titer.guard.web import drawings, logs, trends

STYLE = Path(trends.__file__).parent / "static" / "guard.css"


def test_the_dashboard_counts_what_the_database_holds(context, client) -> None:
    seed.history(context, 120)
    now = context.clock()
    with context.engine.connect() as connection:
        found = trends.numbers(connection, trends.Stretch(start=now - 86400, end=now))
    assert sum(found.traffic) == 120
    assert {name: sum(values) for name, values in found.outcomes.items()} == {"PASS": 117, "FLAG": 3, "BLOCK": 0}
    assert (found.studies, found.alerted, found.alert_load) == (120, 3, 25.0)
    (line,) = found.outbox
    assert (line.destination, line.waiting, line.delivered, line.dead) == ("pacs", 5, 115, 0)
    assert line.oldest is not None
    known = [value for value in found.drift["reconstruction"] if value is not None]
    assert 0.4 < min(known) <= max(known) < 1.1
    page = client("admin").get("/dashboard").text
    assert page.count("<svg") == 4
    assert "25</dd>" in page
    assert client("auditor").get("/dashboard", params={"span": "30d"}).status_code == 200


def test_an_admin_switches_a_layer_and_the_change_is_an_alert(context, client, events) -> None:
    admin = client("admin")
    assert admin.post("/switches", data={"route": "all", "layer": "detectors", "on": "off"}).status_code == 303
    with context.engine.connect() as connection:
        row = connection.execute(select(switches)).one()
    assert (row.route, row.layer, row.on, row.account) == ("all", "detectors", False, "one-admin")
    assert events()[-1]["type"]["code"] == "110113"
    assert "by one-admin" in admin.get("/dashboard").text
    assert admin.post("/switches", data={"route": "all", "layer": "detectors", "on": "default"}).status_code == 303
    with context.engine.connect() as connection:
        assert connection.execute(select(switches)).first() is None
    assert events()[-1]["type"]["code"] == "110100"
    told = {one["type"]: one["valueString"] for one in events()[-1]["entity"][0]["detail"]}
    assert told == {"what": "layer switched", "route": "all", "layer": "detectors", "to": "default"}
    refused = admin.post("/switches", data={"route": "none", "layer": "model", "on": "off"})
    assert refused.status_code == 400
    assert "allowed" in refused.text
    assert "Switch detectors" not in client("radiologist").get("/dashboard").text


def test_the_audit_browser_shows_exports_and_audits_itself(client, events) -> None:
    one = client("auditor")
    assert "User Authentication" in one.get("/audit", params={"code": "110114"}).text
    assert events()[-1]["type"]["code"] == "110101"
    exported = [json.loads(line) for line in one.get("/audit/export").text.splitlines()]
    assert [row["seq"] for row in exported] == list(range(1, len(exported) + 1))
    assert exported[-1]["event"]["type"]["code"] == "110101"


def test_metrics_are_for_prometheus_and_name_nobody(context, client) -> None:
    seed.history(context, 10)
    client("radiologist").get("/queue")
    text = client("service").get("/metrics").text
    assert 'titer_verdicts{outcome="PASS",route="all"} 10.0' in text
    assert 'titer_http_requests_total{method="GET",route="/queue",status="200"} 1.0' in text
    assert "one-radiologist" not in text


class Broken:
    name = "judge"

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def trouble(self) -> str | None:
        return "the model of /secret/path is gone"


def test_readiness_names_what_does_not_work_and_says_why_only_after_login(context, anyone, client) -> None:
    assert anyone.get("/health/live").json() == {"status": "alive"}
    assert anyone.get("/health/ready").json() == {"status": "ready", "components": {"database": "works"}}
    context.parts.append(Broken())
    answer = anyone.get("/health/ready")
    assert (answer.status_code, answer.json()["components"]["judge"]) == (503, "not working")
    assert "gone" in client("admin").get("/health/ready").json()["components"]["judge"]


PATIENT = ["MEIER^ANNA", "Meier, Anna", "4711998", "1957-03-12", "19570312", "1.2.840.113619.2.55.3.604688119"]


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    structlog.reset_defaults()
    for name in ("titer.guard", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()


@pytest.mark.parametrize("who", PATIENT)
def test_no_log_line_holds_a_patient(log: io.StringIO, who: str) -> None:
    logger = structlog.stdlib.get_logger("titer.guard.test")
    logger.info(f"stored object of {who}")
    logger.info("stored", patient=who, patient_name=who, nested={"name": who}, route=who, account=who, error=who)
    try:
        int(f"bad value in {who}")
    except ValueError:
        logger.exception("failed")
    logging.getLogger("titer.guard.other").warning("object of %s failed", who)
    text = log.getvalue()
    assert len(text.splitlines()) == 4
    for part in (who, *re.split(r"[\^, ]+", who)):
        assert part not in text
    assert '"error": "ValueError"' in text


def test_a_log_line_keeps_what_an_operator_needs(log: io.StringIO) -> None:
    structlog.stdlib.get_logger("titer.guard.test").warning(
        "destination does not answer", destination="pacs", attempts=3, verdict_id=17, route="/cases/{number}"
    )
    line = json.loads(log.getvalue())
    assert line["event"] == "destination does not answer"
    assert (line["destination"], line["attempts"], line["verdict_id"]) == ("pacs", 3, 17)
    assert (line["route"], line["level"]) == ("/cases/{number}", "warning")


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


PALETTE = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", STYLE.read_text()))
TEXT = [(text, ground) for text in ("ink", "soft", "link") for ground in ("paper", "wash")]
TEXT += [("bad", "bad-wash"), ("good", "good-wash"), ("care", "care-wash"), ("bad", "paper"), ("care", "paper")]
SHAPES = [
    (name, ground) for name in ("edge", "focus", "l0", "l1", "l2", "l3", "l4", "l5") for ground in ("paper", "wash")
]


@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_has_the_contrast_of_wcag_aa(text: str, ground: str) -> None:
    assert contrast(PALETTE[text], PALETTE[ground]) >= 4.5


@pytest.mark.parametrize(("shape", "ground"), SHAPES)
def test_borders_focus_and_lines_have_the_contrast_of_wcag_aa(shape: str, ground: str) -> None:
    assert contrast(PALETTE[shape], PALETTE[ground]) >= 3.0


def test_words_on_buttons_and_panes_have_the_contrast_of_wcag_aa() -> None:
    assert contrast("#ffffff", PALETTE["link"]) >= 4.5
    assert contrast("#e8edf2", "#1c232b") >= 4.5
    assert contrast("#ffd75e", "#1c232b") >= 4.5


def test_charts_hold_no_style_that_the_policy_forbids_and_escape_names() -> None:
    drawn = drawings.lines({"<b>": [1.0, None, 3.0]}, "a <title>", ("1 d ago", "now"), limit=1.0)
    drawn += drawings.columns({"PASS": [0.0, 2.0]}, "x", ("a", "b")) + drawings.bar(2.0, 1.0)
    assert "style=" not in drawn
    assert "<title>" not in drawn
    assert drawings.columns({"PASS": []}, "nothing", ("", ""))
