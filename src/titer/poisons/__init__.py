"""Shelf: attacks on the training set, one file each."""
