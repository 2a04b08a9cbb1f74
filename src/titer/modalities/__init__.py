"""The shelf of modalities, one file each: loader, domain rules, default threats, default network."""
