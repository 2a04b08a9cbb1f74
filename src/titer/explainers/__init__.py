"""The shelf of explainers, one file each."""
