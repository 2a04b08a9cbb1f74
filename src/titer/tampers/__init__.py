"""Shelf: attacks on files, one file each."""
