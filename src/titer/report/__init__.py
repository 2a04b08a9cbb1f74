"""The report: a run folder in, one self-contained `report.html` and its data `report.json` out. Never imports torch."""
