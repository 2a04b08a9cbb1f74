"""Judging: checks, detectors and model, and the verdict that binds their results to one input (G4, G7)."""
