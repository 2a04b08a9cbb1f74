"""`build(run_dir)`: write `report.html` and `report.json` into a run folder, each whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from titer.report.data import report_data
from titer.report.load import read_run
from titer.report.page import render
from titer.report.sections import context, derive


def build(run_dir: Path) -> Path:
    """Build the report of a run folder from that folder alone: no model, no data, no network.

    Args:
        run_dir: the folder that `titer assess` wrote; `report.html` and `report.json` are written into it.

    Returns:
        The path of `report.html`.

    Raises:
        SpecError: a file of the folder is missing, damaged, or of another format version; nothing is written then.
    """
    run_dir = Path(run_dir)
    derived = derive(read_run(run_dir))
    page = render(context(derived))
    data = json.dumps(report_data(derived), ensure_ascii=False, indent=1, allow_nan=False)
    _write(run_dir / "report.json", data + "\n")
    return _write(run_dir / "report.html", page)


def _write(path: Path, content: str) -> Path:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private, a report is for others to read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
