"""Metrics, intervals, tests and the protocol that turns a table of outcomes into evidence; never torch.

Import the module you need (`titer.stats.tables`, `titer.stats.protocol`); this package itself imports nothing.
"""
