"""Commands for people: the demo, and the tools around a running network."""
