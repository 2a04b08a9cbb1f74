"""Storage, quotas and security alerts on the dashboard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.guard.web import seed

from titer.guard.judge.pace import Pace, TooMuch
from titer.guard.web import upkeep


def test_the_dashboard_says_what_is_kept_and_who_sent_it(context, client) -> None:
    seed.put(context, [seed.image_file(np.zeros((1024, 1024), dtype=np.uint16))], at=context.clock())
    with context.engine.connect() as connection:
        found = upkeep.upkeep(connection, context)
    assert (found.kept, round(found.kept_mib)) == (1, 2)
    assert found.oldest == pytest.approx(context.clock(), abs=60)
    assert found.free_mib > 0
    page = client("radiologist").get("/dashboard").text
    assert "1, 2 MiB" in page
    assert "no quota is set" in page


def test_a_spent_query_budget_is_an_alert_that_admins_and_auditors_see(context, client) -> None:
    judge = context.settings.judge.model_copy(update={"queries_per_day": 5})
    pace = Pace(replace(context, settings=context.settings.model_copy(update={"judge": judge})))
    pace.take("scanner", "chest", 5)
    for _ in range(2):
        with pytest.raises(TooMuch):
            pace.take("scanner", "chest", 1)
    for role in ("admin", "auditor"):
        page = client(role).get("/dashboard").text
        assert page.count("query budget spent") == 1, "one alert an hour"
        assert "scanner" in page
    page = client("radiologist").get("/dashboard").text
    assert "query budget spent" not in page
    assert "administrators and auditors see which" in page
    assert "titer_security_alerts 1.0" in client("service").get("/metrics").text


def test_what_a_person_typed_is_not_shown_among_the_alerts(client) -> None:
    client("reviewer").post("/break-glass", data={"reason": "the radiologist does not answer"})
    page = client("admin").get("/dashboard").text
    assert "break-glass access" in page
    assert "does not answer" not in page


def test_alerts_before_the_time_shown_are_not_counted(context, client) -> None:
    client("reviewer").post("/break-glass", data={"reason": "the radiologist does not answer"})
    with context.engine.connect() as connection:
        assert upkeep.alerts(connection, context.clock() - 60)[1] == 1
        assert upkeep.alerts(connection, context.clock() + 60) == ([], 0)
