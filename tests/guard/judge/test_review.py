"""People decide about held verdicts: who may, what follows, and what it leaves in the record."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.guard.judge.scene import all_of, receive, verdicts_of
from tests.guard.judge.test_pipeline import Models, Run

from titer.core.errors import SpecError
from titer.guard.audit.verify import verified
from titer.guard.judge.review import decide
from titer.guard.store.tables import audit, objects, outbox, reviews, verdicts


@pytest.fixture
def run(guard, log) -> Callable[[], Run]:
    def make() -> Run:
        one = Run(guard, log, Models(score=9.0), named=True)
        receive(one.context, "1.2.3.1")
        receive(one.context, "1.2.3.2", number=2)
        one.judge()
        return one

    return make


@pytest.fixture
def held(run, log):
    """A flagged series, and the function that decides about it."""
    one = run()
    (verdict,) = verdicts_of(one.context)
    return one, lambda *given, **named: decide(one.context, verdict.id, *given, parts=log.parts, **named)


@pytest.fixture
def blocked(run, log):
    log.block = {"1.2.3.2"}
    one = run()
    (verdict,) = verdicts_of(one.context, "instance")
    return one, lambda *given, **named: decide(one.context, verdict.id, *given, parts=log.parts, **named)


def _state(one: Run, kind: str = "series") -> str:
    return verdicts_of(one.context, kind)[-1].state


def test_an_accepted_result_is_released_in_the_transaction_that_accepts_it(held, log):
    one, decided = held
    assert decided("ines", "radiologist", "accept", "a marker on the film", "pneumonia").state == "accepted"
    assert log.released == [verdicts_of(one.context)[0].id]
    assert log.announced == [verdicts_of(one.context)[0].id] * 2  # a review is asked for, and is over
    (review,) = all_of(one.context, reviews)
    assert (review.account, review.role, review.action, review.label) == ("ines", "radiologist", "accept", "pneumonia")
    assert verified(one.context.home)[1] == []


def test_a_release_that_fails_leaves_the_verdict_held_and_no_review(held, log):
    from dataclasses import replace

    one, _ = held

    def fails(*_given: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide(
            one.context, verdicts_of(one.context)[0].id, "ines", "radiologist", "accept",
            parts=lambda: replace(log.parts(), release=fails),
        )  # fmt: skip
    assert _state(one) == "held"
    assert all_of(one.context, reviews) == []


@pytest.mark.parametrize(
    ("action", "label", "state"), [("override", "normal", "overridden"), ("reject", None, "rejected")]
)
def test_g4_what_was_overridden_or_rejected_never_leaves(held, log, action, label, state):
    one, decided = held
    assert decided("ines", "reviewer", action, "no", label).state == state
    assert log.released == []
    with pytest.raises(SpecError, match=f"is {state}: only held verdicts"):
        decided("otto", "radiologist", "accept")
    assert _state(one) == state


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("ada", "admin", "accept"), "role = 'admin' may not decide"),
        (("ines", "radiologist", "aprove"), "action = 'aprove'"),
        (("ines", "radiologist", "override"), "label is missing"),
        (("ines", "radiologist", "override", "", "pnuemonia"), "label = 'pnuemonia'"),
        (("ines", "radiologist", "comment", " "), "comment is empty"),
    ],
)
def test_a_decision_that_is_not_allowed_is_refused_with_the_reason(held, given, said):
    one, decided = held
    with pytest.raises(SpecError) as error:
        decided(*given)
    assert said in str(error.value)
    assert _state(one) == "held"


def test_a_comment_changes_nothing_but_is_kept(held):
    one, decided = held
    assert decided("ines", "reviewer", "comment", "look at the left apex").state == "held"
    assert [row.comment for row in all_of(one.context, reviews)] == ["look at the left apex"]


def test_a_verdict_that_a_late_slice_overtook_cannot_be_accepted(held, log):
    one, decided = held
    receive(one.context, "1.2.3.3", number=3)
    one.judge()
    with pytest.raises(SpecError, match="superseded"):
        decided("ines", "radiologist", "accept")
    assert log.released == []


def test_what_was_blocked_needs_two_different_people(blocked):
    one, decided = blocked
    assert decided("ines", "radiologist", "accept").waits_for_second
    with pytest.raises(SpecError, match="ines said so already"):
        decided("ines", "radiologist", "accept")
    assert _state(one, "instance") == "held"
    assert len(all_of(one.context, outbox)) == 1
    assert decided("otto", "reviewer", "accept").state == "accepted"


def test_what_was_blocked_needs_a_radiologist_among_the_two(blocked):
    one, decided = blocked
    assert decided("otto", "reviewer", "accept").waits_for_second
    with pytest.raises(SpecError, match="one of the two people has to be one"):
        decided("olga", "reviewer", "accept")
    assert decided("ines", "radiologist", "accept").state == "accepted"
    assert _state(one, "instance") == "accepted"


def test_what_is_let_out_of_quarantine_goes_on_and_its_series_is_judged_with_it(blocked):
    one, decided = blocked
    decided("ines", "radiologist", "accept")
    decided("otto", "radiologist", "accept")
    out = next(row for row in all_of(one.context, objects) if row.sop_instance_uid == "1.2.3.2")
    assert out.state == "checked"
    assert Path(out.path).is_relative_to(one.context.home.spool)
    assert Path(out.path).is_file()
    assert not list(one.context.home.quarantine.rglob(out.digest))
    assert [row.path for row in all_of(one.context, outbox) if row.subject == "1.2.3.2"] == [out.path]
    one.judge()
    assert [row.revision for row in verdicts_of(one.context)] == [0, 1]
    assert verdicts_of(one.context)[1].result["images"] == 2


def test_one_person_can_reject_what_was_blocked_and_it_stays_where_it_is(blocked):
    one, decided = blocked
    assert decided("otto", "reviewer", "reject").state == "rejected"
    assert [row.state for row in all_of(one.context, objects)] == ["judged", "quarantined"]


def test_a_flagged_series_that_is_accepted_is_learned_once_and_audited(held, log):
    one, decided = held
    assert log.learned == []
    decided("ines", "radiologist", "accept")
    assert [[path.name for path in paths] for paths in log.learned] == [
        [Path(row.path).name for row in all_of(one.context, objects)]
    ]
    receive(one.context, "1.2.3.3", number=3)
    one.judge()
    again = verdicts_of(one.context)[-1]
    assert decide(one.context, again.id, "ines", "radiologist", "accept", parts=log.parts).state == "accepted"
    assert len(log.learned) == 1  # a series that comes in instalments is no habit
    events = [row.event for row in all_of(one.context, audit) if "baseline learns" in row.event]
    assert len(events) == 1
    assert verified(one.context.home)[1] == []


@pytest.mark.parametrize(("action", "label"), [("override", "normal"), ("reject", None), ("comment", "normal")])
def test_what_was_not_accepted_is_never_learned(held, log, action, label):
    _, decided = held
    decided("ines", "radiologist", action, "no", label)
    assert log.learned == []


def test_a_blocked_series_teaches_nothing_though_two_people_accept_it(held, log):
    one, decided = held
    one.context.journal.write(lambda connection: connection.execute(update(verdicts).values(outcome="BLOCK")))
    decided("ines", "radiologist", "accept")
    assert decided("otto", "radiologist", "accept").state == "accepted"
    assert log.learned == []


def test_a_series_whose_files_are_not_all_there_any_more_teaches_nothing(held, log):
    one, decided = held
    gone = update(objects).where(objects.c.sop_instance_uid == "1.2.3.2").values(state="deleted")
    one.context.journal.write(lambda connection: connection.execute(gone))
    assert decided("ines", "radiologist", "accept").state == "accepted"
    assert log.learned == []
