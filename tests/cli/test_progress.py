"""Plain progress lines: what is running, how much is done, and a time left only when it is known."""

from __future__ import annotations

import pytest

from titer.assess.pool import Message
from titer.cli.progress import console_progress


def test_lines_count_and_name_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with console_progress(20) as listen:
        listen(Message("training"))
        for _ in range(20):
            listen(Message("attacking", done=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[0/20] 0 s gone, time left not known yet: training"
    assert lines[-1] == "[20/20] 0 s gone, about 0 s left: attacking"
    assert len(lines) == 2


def test_names_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with console_progress(1) as listen:
        listen(Message("model [red]x[/red]", done=True))
    assert "model [red]x[/red]" in capsys.readouterr().err
