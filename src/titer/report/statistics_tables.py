"""The statistics file as tables for reading."""

from __future__ import annotations

from typing import Any

from titer.report.study import Study
from titer.report.tables import Table


def statistics_tables(statistics: dict[str, Any], study: Study) -> tuple[Table, ...]:
    """Return the tables of the statistics section; sections that are empty are left out."""
    return ()


def protocol_lines(protocol: Any) -> tuple[tuple[str, str], ...]:
    """Return the protocol as (name, description)."""
    return ()
