"""The judge at work: one thread for objects, one that looks for series to judge, and some that judge them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from titer.guard.context import Context
from titer.guard.judge.explain import ahead, follow
from titer.guard.judge.instances import Instances
from titer.guard.judge.parts import Parts, real
from titer.guard.judge.runtime import Opener, open_bundle
from titer.guard.judge.series import SeriesJudge
from titer.guard.judge.workers import Workers, share, unshare

OBJECTS, _CHECKED = "objects", "checked"
_LOOK_SECONDS = 0.5
_AT_ONCE = 4


class Judge:
    """Part of a running guard: objects to verdicts."""

    name = "judge"

    def __init__(self, context: Context, parts: Parts | None = None, opener: Opener = open_bundle) -> None:
        """Take what the other parts give (those of this guard by default), and what opens a bundle."""
        self._context, self._parts = context, parts
        self.workers = Workers(context, opener)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin, with what a run before left undone.

        Raises:
            SpecError: a route names a model that is no bundle of this guard, or authorities of signatures are none. A
                bundle that is damaged does not stop the images: its verdicts are FLAG, and `trouble` says why.
        """
        models = [route.model for route in self._context.settings.routes if route.model is not None]
        for worker in [self.workers.worker(name) for name in models]:  # all are named before one is started
            worker.start()
        parts = self._parts or real(self._context)
        share(self._context, self.workers)
        self._deliver = parts.captures
        self._instances = Instances(self._context, parts)
        self._series = SeriesJudge(self._context, parts, self.workers)
        self._instances.tidy()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="judge series")
        for name, work, bell in (("objects", self._objects, OBJECTS), ("series", self._look, _CHECKED)):
            thread = threading.Thread(target=self._run, args=(name, work, bell), name=f"judge {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Finish what is begun, and end; what waits stays in the database."""
        self._ended.set()
        for bell in (OBJECTS, _CHECKED):
            self._context.bell.ring(bell)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        unshare(self._context)
        self.workers.stop()

    def trouble(self) -> str | None:
        """Say what keeps it from working."""
        found = [*self._trouble.values(), *self.workers.troubles()]
        return "; ".join(found) or None

    def _run(self, name: str, work: Callable[[], None], bell: str) -> None:
        heard = 0
        while not self._ended.is_set():
            heard = self._context.bell.wait(bell, heard, _LOOK_SECONDS)
            self._tried(name, work)

    def _tried(self, name: str, work: Callable[[], object]) -> bool:
        """Work, and keep running whatever happens: a database that is locked now may be free a second later."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must live, and the trouble is told
            self._trouble[name] = f"{name}: {type(error).__name__}"
            return False
        self._trouble.pop(name, None)
        return True

    def _objects(self) -> None:
        while not self._ended.is_set():
            rows = self._instances.waiting()
            done = [self._tried("objects", partial(self._instances.take, row)) for row in rows]
            if rows:
                self._context.bell.ring(_CHECKED)
            if not any(done):  # nothing left, or nothing that can be written now
                return

    def _look(self) -> None:
        for uid in self._series.due():
            with self._lock:
                if uid in self._busy:
                    continue
                self._busy.add(uid)
            self._pool.submit(self._one, uid)

    def _one(self, uid: str) -> None:
        try:
            self._tried(f"series {uid}", lambda: self._judged(uid))
        finally:
            with self._lock:
                self._busy.discard(uid)

    def _judged(self, uid: str) -> None:
        to_explain = self._series.judge(uid)
        if to_explain is not None:
            ahead(self._context, self.workers, to_explain)
            follow(self._context, to_explain, self._deliver)
