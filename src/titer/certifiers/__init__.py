"""The shelf of certifiers, one file each."""
