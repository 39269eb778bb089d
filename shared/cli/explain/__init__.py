"""`cnitool explain`: list the steps of an ADD."""
