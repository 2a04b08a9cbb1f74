"""What long work shows: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from titer.assess.pool import Listener, Message

_LINE_SECONDS = 5.0
_PACE_STEPS = 30
_KNOWN_SHARE = 0.1


@contextmanager
def console_progress(total: int) -> Iterator[Listener]:
    """Yield a listener that shows what is running, how many of `total` cells are done, and the time left."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, total) as listener:
            yield listener
    else:
        yield _Lines(console, total)


@contextmanager
def _bar(console: object, total: int) -> Iterator[Listener]:
    from rich import progress as bars
    from rich.console import Console

    assert isinstance(console, Console)
    columns = (
        bars.BarColumn(bar_width=24), bars.MofNCompleteColumn(), bars.TimeElapsedColumn(), bars.TextColumn("gone,"),
        bars.TimeRemainingColumn(), bars.TextColumn("left:"), bars.TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    with bars.Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=total)

        def listen(message: Message) -> None:
            progress.update(bar, description=message.text, advance=int(message.done))

        yield listen


class _Lines:
    """One plain line every few seconds: cells done, time left, what is running."""

    def __init__(self, console: object, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._ended: deque[float] = deque(maxlen=_PACE_STEPS)
        self._shown = float("-inf")

    def __call__(self, message: Message) -> None:
        now = time.monotonic()
        if message.done:
            self._done += 1
            self._ended.append(now)
        if now - self._shown < _LINE_SECONDS and self._done != self._total:
            return
        self._shown = now
        self._print(f"[{self._done}/{self._total}] {_spoken(now - self._began)} gone{self._left(now)}: {message.text}")

    def _left(self, now: float) -> str:
        # Trainings come first and take far longer than cells: their pace says nothing about the rest.
        if self._done < _KNOWN_SHARE * self._total or len(self._ended) < 2:
            return ", time left not known yet"
        pace = (now - self._ended[0]) / (len(self._ended) - 1)
        return f", about {_spoken(pace * (self._total - self._done))} left"

    def _print(self, line: str) -> None:
        from rich.console import Console

        assert isinstance(self._console, Console)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
