"""The call server: it keeps workers at hand that serve calls without an interpreter's start."""
