"""Filters of the frames on a bridge's ports."""
