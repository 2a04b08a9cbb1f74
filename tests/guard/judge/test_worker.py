"""The worker answers, dies, hangs and starves without taking the guard with it."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.guard.judge import faults

from titer.guard.judge.messages import Ask, WorkerFailed
from titer.guard.judge.runtime import serve
from titer.guard.judge.worker import Worker
from titer.guard.settings import JudgeSettings

ROWS = np.full((1, 1, 8, 8), 100, dtype=np.float32)


@pytest.fixture
def worker():
    made = []

    def make(opener, **settings):
        made.append(Worker(Path("nowhere"), JudgeSettings(**settings), opener))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_it_answers_with_the_facts_of_the_process_that_answered(worker):
    answer, facts = worker(faults.well).ask(Ask(rows=ROWS))
    assert answer.probabilities == [[0.25, 0.75]]
    assert facts == faults.FACTS


@pytest.mark.parametrize(
    ("opener", "said"),
    [
        (faults.crashing, "the process ended (signal 11)"),
        (faults.raising, "RuntimeError: the kernel of layer 3 failed"),
        (faults.refusing, "not the file that was pinned"),
        (faults.dying, "ended while it loaded"),
    ],
)
def test_a_model_that_crashes_or_cannot_be_loaded_is_a_reason(worker, opener, said):
    with pytest.raises(WorkerFailed) as reason:
        worker(opener).ask(Ask(rows=ROWS))
    assert said in str(reason.value)


def test_a_model_that_hangs_is_ended_and_the_next_question_has_a_new_process(worker):
    one = worker(faults.slow, timeout_seconds=0.5)
    pids = []
    for _ in range(2):
        question = one.submit(Ask(rows=ROWS))
        while one.pid is None or one.pid in pids:
            time.sleep(0.01)
        pids.append(one.pid)
        with pytest.raises(WorkerFailed, match=r"no answer within 0\.5 s"):
            question.result()
    assert not psutil.pid_exists(pids[0])


def test_a_model_that_takes_too_much_memory_is_told_so_and_lives_on(worker):
    one = worker(faults.greedy, memory_mib=512)
    for _ in range(2):
        with pytest.raises(WorkerFailed, match="out of memory"):
            one.ask(Ask(rows=ROWS))


def test_a_process_killed_in_the_middle_of_a_question_fails_that_one_and_answers_the_next(worker):
    one = worker(faults.slow)
    question = one.submit(Ask(rows=ROWS))
    while one.pid is None:
        time.sleep(0.01)
    killer = threading.Timer(0.3, os.kill, (one.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(WorkerFailed, match="signal 9"):
        question.result()
    killer.join()
    another = worker(faults.well)
    another.ask(Ask(rows=ROWS))
    idle = psutil.Process(another.pid)
    os.kill(another.pid, signal.SIGKILL)
    while idle.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert another.ask(Ask(rows=ROWS))[0].inputs == 1


@pytest.mark.parametrize("when", ["before it says that it is ready", "before it answers"])
def test_a_worker_whose_guard_was_killed_ends_without_a_traceback(capfd, when):
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, faults.late, Path("nowhere"), 512))
    process.start()
    theirs.close()
    if when == "before it answers":
        assert b"facts" in ours.recv_bytes()
        ours.send([Ask(rows=ROWS)])
    ours.close()
    process.join()
    assert capfd.readouterr().err == ""
    assert process.exitcode == 0


def test_one_poisonous_input_does_not_fail_its_neighbours(worker):
    one = worker(faults.crashing_on_poison, batch_ms=300)
    one.ask(Ask(rows=ROWS))
    questions = [one.submit(Ask(rows=rows)) for rows in (ROWS, 2.5 * ROWS, ROWS)]
    assert questions[0].result()[0].inputs == questions[2].result()[0].inputs == 1
    with pytest.raises(WorkerFailed, match="signal 9"):
        questions[1].result()


def test_a_bundle_that_was_refused_is_trouble_and_is_not_loaded_for_every_question(worker):
    one = worker(faults.refusing)
    for _ in range(3):
        with pytest.raises(WorkerFailed):
            one.ask(Ask(rows=ROWS))
    assert "pinned" in one.trouble()


def test_questions_that_wait_when_it_is_stopped_fail_and_no_process_is_left(worker):
    one = worker(faults.well)
    one.ask(Ask(rows=ROWS))
    pid = one.pid
    one.stop()
    with pytest.raises(WorkerFailed, match="stopped"):
        one.ask(Ask(rows=ROWS))
    assert not psutil.pid_exists(pid)
