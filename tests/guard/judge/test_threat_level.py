"""The guard's threat level: which layers it chooses, what it keeps from being shed, and what it holds."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import insert, select
from tests.guard.judge.scene import Log, receive, verdicts_of

from titer.core.errors import SpecError
from titer.guard.judge.instances import Instances
from titer.guard.judge.layers import Load, layers_of, level_of, load_of, noted, set_level, switch
from titer.guard.judge.series import SeriesJudge
from titer.guard.judge.workers import Workers
from titer.guard.records import Outcome
from titer.guard.settings import LAYERS, RouteSettings
from titer.guard.store.tables import audit, findings, threat_level

CHEST = RouteSettings(name="chest", model="chest")


@pytest.mark.parametrize(
    ("level", "loads"),
    [
        ("normal", [Load.NORMAL, Load.NO_EXPLANATIONS, Load.SAMPLING, Load.SAMPLING]),
        ("raised", [Load.NORMAL, Load.NORMAL, Load.NO_EXPLANATIONS, Load.NO_EXPLANATIONS]),
        ("high", [Load.NORMAL, Load.NORMAL, Load.NO_EXPLANATIONS, Load.NO_EXPLANATIONS]),
    ],
)
def test_above_the_normal_level_explanations_are_shed_later_and_detectors_never_sample(level, loads) -> None:
    assert [load_of(delay, 250, level) for delay in (0.1, 0.5, 1.1, 3600.0)] == loads


def test_the_settings_say_the_level_until_an_administrator_does_and_again_after(guard) -> None:
    context = guard(more='threat_level = "raised"\n')

    def now() -> str:
        with context.engine.connect() as connection:
            return level_of(connection, context.settings)

    assert now() == "raised"
    set_level(context, "high", account="ada")
    assert now() == "high"
    set_level(context, None, account="ada")
    assert now() == "raised"
    with pytest.raises(SpecError, match="threat level"):
        set_level(context, "panic", account="ada")


def test_each_change_is_an_audit_row_and_lowering_is_an_alert(guard) -> None:
    context = guard()
    for level in ("high", "raised", None):
        set_level(context, level, account="ada")
    with context.engine.connect() as connection:
        rows = [json.loads(one) for one in connection.execute(select(audit.c.event).order_by(audit.c.seq)).scalars()]
    assert [row["type"]["code"] for row in rows] == ["110100", "110113", "110113"]
    assert all(row["agent"][0]["who"]["identifier"]["value"] == "ada" for row in rows)
    assert {"type": "to", "valueString": "normal"} in rows[-1]["entity"][0]["detail"]


def test_a_level_that_only_a_changed_database_holds_counts_as_high(guard) -> None:
    context = guard()
    row = insert(threat_level).values(id=1, level="odd", account="x", at=0.0)
    context.journal.write(lambda connection: connection.execute(row).rowcount)
    with context.engine.connect() as connection:
        assert level_of(connection, context.settings) == "high"


def test_a_route_chooses_its_layers_by_level_and_a_switch_stands_above_both(guard) -> None:
    context = guard()
    route = RouteSettings(name="chest", layers=("checks",), layers_raised=("checks", "detectors"))
    with context.engine.connect() as connection:
        chosen = {level: layers_of(connection, route, level) for level in ("normal", "raised", "high")}
    assert chosen == {"normal": {"checks"}, "raised": {"checks", "detectors"}, "high": {"checks", "detectors"}}
    assert CHEST.layers_at("high") == LAYERS
    switch(context, "chest", "detectors", on=False, account="ada")
    with context.engine.connect() as connection:
        assert layers_of(connection, route, "high") == {"checks"}
    switch(context, "chest", "detectors", on=None, account="ada")
    with context.engine.connect() as connection:
        assert layers_of(connection, route, "high") == {"checks", "detectors"}


@pytest.mark.parametrize(("route", "layer"), [("knee", "detectors"), ("chest", "roof")])
def test_a_route_or_layer_that_is_none_is_not_switched(guard, route: str, layer: str) -> None:
    with pytest.raises(SpecError, match="allowed"):
        switch(guard(), route, layer, on=False, account="ada")


def test_every_verdict_above_the_normal_level_says_so() -> None:
    every = frozenset(LAYERS)
    assert noted(CHEST, every, "normal") == []
    (raised,) = noted(CHEST, every, "raised")
    (high,) = noted(CHEST, every, "high")
    assert (raised.outcome, high.outcome) == (Outcome.PASS, Outcome.FLAG)
    assert raised.reason == "judged at threat level raised"
    (plain,) = noted(RouteSettings(name="rest"), every, "high")
    assert plain.outcome is Outcome.PASS, "without a model there is no result to hold"


def _judged(context, log: Log):
    parts, workers = log.parts(), Workers(context)
    try:
        objects = Instances(context, parts)
        for row in objects.waiting():
            objects.take(row)
        SeriesJudge(context, parts, workers).judge("1.2.3")
    finally:
        workers.stop()
    return verdicts_of(context)[-1]


def test_a_series_without_a_model_passes_at_every_level_and_keeps_the_note(guard, log: Log) -> None:
    context = guard()
    set_level(context, "high", account="ada")
    receive(context, "1.2.3.1")
    assert _judged(context, log).outcome == "PASS"
    with context.engine.connect() as connection:
        (note,) = connection.execute(select(findings).where(findings.c.rule == "threat-level")).all()
    assert (note.outcome, note.evidence) == ("PASS", {"level": "high"})


@pytest.mark.slow
def test_at_the_high_level_a_clean_result_waits_for_a_person_and_is_least_urgent(guard, bundle, log: Log) -> None:
    from titer.guard.judge.demo import demo_images

    context = guard(model=bundle)
    picture = demo_images(1).numpy()[0, 0]
    receive(context, "1.2.3.1", picture)
    first = _judged(context, log)
    set_level(context, "high", account="ada")
    receive(context, "1.2.3.2", picture, number=2)
    second = _judged(context, log)
    assert (second.outcome, second.state) == ("FLAG", "held")
    assert log.released == ([first.id] if first.outcome == "PASS" else [])
    assert second.id in log.announced
    assert second.result is not None
    if first.outcome == "PASS":
        assert second.urgency == 1
