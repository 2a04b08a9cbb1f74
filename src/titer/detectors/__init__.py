"""The shelf of detectors, one file each."""
