"""The shelf of defences, one file each."""
