"""Typical mistakes of people, put into the code one at a time: each must make a test fail."""
