"""`cnitool explain`: the steps of an ADD."""
