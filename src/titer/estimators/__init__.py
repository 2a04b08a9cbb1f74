"""Models that are no networks, trained inside a plan: one file each."""
