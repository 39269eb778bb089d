"""Addresses for a cluster: nodes claim blocks from an engine, and host-local gives their addresses to pods."""
