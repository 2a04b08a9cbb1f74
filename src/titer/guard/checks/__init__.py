"""Checks: what rules of the standard, of the series and of the device's past say about an object."""
