"""The assessment: a plan becomes outcomes, outcomes become metrics, statistics, doubts and a report."""
