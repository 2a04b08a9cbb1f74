"""The shelf of evasion attacks, one file each."""
