"""Objects become series become verdicts, whatever comes late, twice, broken or in between."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.guard.judge import faults
from tests.guard.judge.scene import Log, all_of, receive, verdicts_of

from titer.guard.audit.verify import verified
from titer.guard.context import Context
from titer.guard.judge.component import Judge
from titer.guard.judge.instances import Instances
from titer.guard.judge.layers import Load, load_of, switch
from titer.guard.judge.messages import Answer, WorkerFailed
from titer.guard.judge.order import series_digest
from titer.guard.judge.series import SeriesJudge
from titer.guard.store.tables import findings, objects, outbox, series


class Models:
    """A worker without a process: answers at once, or fails for a reason."""

    def __init__(self, *, fails: str | None = None, delay: float = 0.0, score: float = 0.0) -> None:
        self.fails, self.seconds, self.score = fails, delay, score
        self.asked: list[object] = []

    def worker(self, _name: str) -> "Models":
        return self

    def delay(self) -> float:
        return self.seconds

    def ask(self, ask: object) -> tuple[Answer, object]:
        self.asked.append(ask)
        if self.fails:
            raise WorkerFailed(self.fails)
        return faults.fine(ask, score=self.score), faults.FACTS


class Run:
    """A judge whose steps the test takes one by one, at a time that the test tells."""

    def __init__(self, guard: Callable[..., Context], log: Log, models: Models, **settings: object) -> None:
        self.now = 1000.0
        self.context = guard(clock=lambda: self.now, **settings)
        self.instances = Instances(self.context, log.parts())
        self.series = SeriesJudge(self.context, log.parts(), models)

    def check(self) -> None:
        for row in self.instances.waiting():
            self.instances.take(row)

    def judge(self, wait: float = 1.0) -> None:
        self.check()
        self.now += wait
        for uid in self.series.due():
            self.series.judge(uid)


@pytest.fixture
def run(guard, log) -> Callable[..., Run]:
    return lambda models=None, **settings: Run(guard, log, models or Models(), **{"named": True, **settings})


def _states(context: Context, table=objects) -> list[str]:
    return [row.state for row in all_of(context, table)]


def _reasons(context: Context) -> str:
    return "; ".join(row.reason for row in all_of(context, findings))


def test_a_clean_series_passes_and_its_images_went_on_before_it_was_judged(run, log):
    one = run()
    for number in range(3):
        receive(one.context, f"1.2.3.{number}", number=3 - number)
    one.check()
    assert [row.kind for row in all_of(one.context, outbox)] == ["object"] * 3
    assert verdicts_of(one.context) == []
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert (verdict.outcome, verdict.state, verdict.urgency) == ("PASS", "released", 0)
    assert verdict.result["class"] == "pneumonia"
    assert log.released == [verdict.id]
    assert log.announced == []
    assert len(log.learned) == 1
    assert _states(one.context) == ["judged"] * 3


def test_g4_a_verdict_is_bound_to_exactly_its_input_model_and_detectors(run):
    one = run()
    for number in (1, 2, 3):
        receive(one.context, f"1.2.3.{number}", number=4 - number)
    one.judge()
    (verdict,) = verdicts_of(one.context)
    digests = [row.digest for row in all_of(one.context, objects)]
    assert verdict.input_digest == series_digest(digests[::-1])  # in slice order, which is not that of arrival
    assert verdict.model_digest == faults.FACTS.model_digest
    assert verdict.bundle_version == faults.FACTS.bundle_version


def test_g4_a_file_that_is_not_the_one_that_came_in_gets_no_result(guard, log, bundle):
    context = guard(model=bundle)
    receive(context, "1.2.3.1", np.full((28, 28), 90))
    (row,) = all_of(context, objects)
    content = bytearray(Path(row.path).read_bytes())
    content[-5] ^= 1
    Path(row.path).write_bytes(content)
    judge = Judge(context, log.parts())
    judge.start()
    verdict = _first(context)
    judge.stop()
    assert (verdict.outcome, verdict.result) == ("FLAG", None)
    assert "not the one that was received" in _reasons(context)
    assert log.released == []


@pytest.mark.parametrize("reason", ["no answer within 30 s", "the process ended (signal 9)", "out of memory"])
def test_g7_a_model_that_does_not_answer_means_flag_and_never_pass(run, log, reason):
    one = run(Models(fails=reason))
    receive(one.context, "1.2.3.1")
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert (verdict.outcome, verdict.state, verdict.result, verdict.urgency) == ("FLAG", "held", None, 1)
    assert reason in _reasons(one.context)
    assert log.released == []
    assert log.announced == [verdict.id]
    assert [row.kind for row in all_of(one.context, outbox)] == ["object"]


@pytest.mark.parametrize(
    ("opener", "said"),
    [
        (faults.crashing, "signal 11"),
        (faults.greedy, "out of memory"),
        (faults.slow, "no answer within 4 s"),
        (faults.no_number, "score of detector watch is no number"),
        (faults.no_chance, "answer is no probability"),
        (faults.silent, "no score of watch"),
        (faults.refusing, "not the file that was pinned"),
        (faults.alarmed, "is above its threshold"),
    ],
)
def test_g7_every_fault_of_model_and_detectors_is_flagged_and_the_image_goes_on(guard, log, opener, said):
    context = guard(named=True, more="[judge]\ntimeout_seconds = 4.0\nmemory_mib = 512\n")
    receive(context, "1.2.3.1")
    judge = Judge(context, log.parts(), opener)
    judge.start()
    verdict = _first(context)
    judge.stop()
    assert (verdict.outcome, verdict.state) == ("FLAG", "held")
    assert said in _reasons(context)
    assert log.released == []
    assert [row.kind for row in all_of(context, outbox)] == ["object"]


def test_g7_a_check_that_fails_is_flagged_and_the_image_goes_on(run, log):
    one = run()
    log.raises = True
    receive(one.context, "1.2.3.1")
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert verdict.outcome == "FLAG"
    assert "could not be checked: ZeroDivisionError" in _reasons(one.context)
    assert len(all_of(one.context, outbox)) == 1


def test_a_blocked_object_is_put_away_alarms_and_goes_nowhere(run, log):
    one = run()
    log.block = {"1.2.3.2"}
    for number in (1, 2):
        receive(one.context, f"1.2.3.{number}", number=number)
    one.judge()
    blocked = next(row for row in all_of(one.context, objects) if row.state == "quarantined")
    assert Path(blocked.path).is_relative_to(one.context.home.quarantine)
    assert Path(blocked.path).is_file()
    assert [row.subject for row in all_of(one.context, outbox)] == ["1.2.3.1"]
    (held,) = verdicts_of(one.context, "instance")
    assert (held.outcome, held.state, held.urgency) == ("BLOCK", "held", 3)
    (verdict,) = verdicts_of(one.context)
    assert verdict.outcome == "FLAG"
    assert "1 objects of this series were blocked" in _reasons(one.context)
    assert not list(one.context.home.spool.rglob(blocked.digest))


def test_a_flagged_object_or_series_holds_the_result(run, log):
    for wanted in ("flag", "series_flag"):
        one = run()
        setattr(log, wanted, {"1.2.3.1"} if wanted == "flag" else True)
        receive(one.context, "1.2.3.1")
        one.judge()
        (verdict,) = verdicts_of(one.context)
        assert (verdict.outcome, verdict.urgency) == ("FLAG", 2)
        log.flag, log.series_flag = set(), False
    assert log.released == []


def test_a_late_slice_opens_the_series_again_and_supersedes_what_was_held(run, log):
    one = run(Models(score=9.0))
    receive(one.context, "1.2.3.1")
    one.judge()
    receive(one.context, "1.2.3.2", number=2)
    one.judge()
    first, second = verdicts_of(one.context)
    assert (first.revision, first.state) == (0, "superseded")
    assert log.announced == [first.id, first.id, second.id], "the request for review of the first is over"
    assert (second.revision, second.state) == (1, "held")
    assert first.input_digest != second.input_digest
    assert all_of(one.context, series)[0].state == "judged"


def test_a_slice_that_comes_while_its_series_is_judged_is_judged_with_it(run, log):
    class Meanwhile(Models):
        def ask(self, ask: object) -> tuple[Answer, object]:
            if len(self.asked) == 0:
                receive(one.context, "1.2.3.2", number=2)
                one.check()
            return super().ask(ask)

    one = run(Meanwhile())
    receive(one.context, "1.2.3.1")
    one.judge()
    assert verdicts_of(one.context) == []
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert verdict.result["images"] == 2
    assert log.released == [verdict.id]


def test_series_that_come_interleaved_are_judged_each_for_itself(run):
    one = run()
    for number in range(6):
        receive(one.context, f"1.2.3.{number}", series_uid=f"1.9.{number % 2}", number=number)
    one.judge()
    assert [(row.subject, row.result["images"]) for row in verdicts_of(one.context)] == [("1.9.0", 3), ("1.9.1", 3)]


def test_a_series_that_never_rests_is_judged_at_its_deadline(run):
    one = run()
    for number in range(40):
        receive(one.context, f"1.2.3.{number}", number=number)
        one.check()
        one.now += 1.0
        receive(one.context, f"1.2.5.{number}", number=number + 100)  # not checked yet when it is looked at
        for uid in one.series.due():
            one.series.judge(uid)
    assert len(verdicts_of(one.context)) == 1


def test_a_clock_that_was_set_back_does_not_hold_a_series_up(run):
    one = run()
    receive(one.context, "1.2.3.1", at=one.now)
    one.now -= 7200
    one.judge(wait=0.0)
    assert len(verdicts_of(one.context)) == 1


def test_judging_the_same_series_from_two_threads_writes_one_verdict(run, log):
    one = run()
    receive(one.context, "1.2.3.1")
    one.check()
    taken = one.series._taken("1.2.3")
    decided, _ = one.series._decided(taken)
    wrote = [one.context.journal.write(lambda c: one.series._write(c, taken, decided)) for _ in range(2)]
    assert wrote[0] is not None
    assert wrote[1] is None
    assert log.released == [wrote[0]]


def test_a_layer_that_is_off_leaves_its_mark_on_the_verdict_and_its_switch_in_the_audit(run, log):
    models = Models(score=9.0)
    one = run(models)
    switch(one.context, "chest", "detectors", on=False, account="ada")
    switch(one.context, "chest", "checks", on=False, account="ada")
    log.series_flag = True
    receive(one.context, "1.2.3.1")
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert verdict.outcome == "PASS"
    assert models.asked[0].watched == ()
    assert "the layer detectors is switched off for route chest" in _reasons(one.context)
    assert "the layer checks is switched off for route chest" in _reasons(one.context)
    rows, problems = verified(one.context.home)
    assert problems == []
    assert rows == 3


def test_an_overloaded_guard_gives_up_explanations_then_samples_and_flags_what_it_did_not_see(run):
    assert [load_of(delay, 250) for delay in (0.1, 0.5, 1.1)] == [Load.NORMAL, Load.NO_EXPLANATIONS, Load.SAMPLING]
    models = Models(delay=5.0)
    one = run(models)
    for number in range(20):
        receive(one.context, f"1.2.3.{number}", number=number)
    one.judge()
    assert models.asked[0].sampled == 8
    (verdict,) = verdicts_of(one.context)
    assert verdict.outcome == "FLAG"
    assert "detectors looked at 8 of 20 images" in _reasons(one.context)


def test_a_route_without_a_model_passes_by_its_checks_and_has_no_result(run):
    one = run(named=False)
    receive(one.context, "1.2.3.1")
    one.judge()
    (verdict,) = verdicts_of(one.context)
    assert (verdict.outcome, verdict.result, verdict.model_digest) == ("PASS", None, None)


def test_what_was_left_undone_is_taken_up_after_a_restart_and_nothing_is_done_twice(guard, log, bundle):
    context = guard(model=bundle)
    receive(context, "1.2.3.1", np.full((28, 28), 90))
    receive(context, "1.2.4.1", np.full((28, 28), 91), series_uid="1.2.4")
    Instances(context, log.parts()).take(all_of(context, objects)[0])  # and then the power went
    for _ in range(2):
        judge = Judge(context, log.parts())
        judge.start()
        _wait(lambda: len(verdicts_of(context)) == 2)
        judge.stop()
    assert sorted(row.subject for row in verdicts_of(context)) == ["1.2.3", "1.2.4"]
    assert len(all_of(context, outbox)) == 2
    assert verified(context.home)[1] == []


def test_a_file_that_a_killed_run_left_in_spool_and_quarantine_is_in_quarantine_alone(run, log):
    one = run()
    log.block = {"1.2.3.1"}
    receive(one.context, "1.2.3.1")
    (row,) = one.instances.waiting()
    one.instances.take(row)
    kept = Path(all_of(one.context, objects)[0].path)
    Path(row.path).hardlink_to(kept)  # as if it was killed before the last step
    one.instances.tidy()
    assert not Path(row.path).exists()
    assert kept.is_file()


def test_a_model_that_no_bundle_has_stops_the_start_with_its_name(guard, log):
    from titer.core.errors import SpecError

    context = guard(named=True)
    (context.home.models / "chest" / "bundle.json").unlink()
    with pytest.raises(SpecError, match="model = 'chest' is no bundle"):
        Judge(context, log.parts()).start()


def _wait(done: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def _first(context: Context):
    _wait(lambda: bool(verdicts_of(context)))
    return verdicts_of(context)[0]
