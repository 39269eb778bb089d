"""Measurements against the reference: tests/bench/run."""
