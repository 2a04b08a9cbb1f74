"""Shelf: searches for poisoned rows of a training set, one file each."""
