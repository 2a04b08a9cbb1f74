"""Figures of the defences, read off a run folder."""
