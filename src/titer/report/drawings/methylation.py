"""Beta values of CpG sites, drawn as expression profiles are: the drawing's own words say what a feature is."""

from __future__ import annotations

from titer.report.drawings.expression import draw

__all__ = ["draw"]
