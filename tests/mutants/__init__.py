"""Mistakes of the kind that people make, put into the code one at a time: each must make a test fail."""
